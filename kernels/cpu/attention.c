#include "kernels/cpu/attention.h"

#include <assert.h>
#include <math.h>

#define SIMD_BODY "attention_simd.h"
#include "simd.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/team.h"
#include "threads.h"

// How it goes, after Dao et al. 2022 (FlashAttention) and Milakov and Gimelshein 2018 (online
// softmax).
//
//     queries of one cache ──> blocks of at most ATTENTION_ROWS (query, head) rows
//     cached positions ──────> segments of ATTENTION_SEGMENT, of ATTENTION_KEYS at a time
//
// The scores of rows times keys stay in the L2 cache. Each segment starts its own sums, which are
// added up in the order of the segments, whether one thread does them all (prefill: threads share
// the blocks) or several (decode: threads share the segments of all blocks). So the result depends
// neither on the number of threads nor on which queries came together.

// Multiply-adds below which waking the threads costs more than they save.
#define ATTENTION_PARALLEL_MIN ((size_t)1 << 17)

struct attention_call {
    float *out;
    const float *q;
    size_t m, n_heads, n_kv_heads, d;
    const struct attention_query *queries;
    float scale;
    size_t tiles_rows; // of a block, where it may be in tiles; else 0
};

static double score_ref(const float *q, const float *k, size_t d, float scale) {
    double sum = 0;
    for (size_t c = 0; c < d; c++)
        sum += (double)q[c] * k[c];
    return sum * scale;
}

// One query head: the largest score, then the sum of e^(score - largest), then the weighted values.
static void head_ref(float *out, const float *q, const float *k, const float *v, size_t d,
                     int32_t first, int32_t last, float scale) {
    double largest = -INFINITY, total = 0;
    for (int32_t p = first; p <= last; p++)
        largest = fmax(largest, score_ref(q, k + (size_t)p * d, d, scale));
    for (int32_t p = first; p <= last; p++)
        total += exp(score_ref(q, k + (size_t)p * d, d, scale) - largest);
    for (size_t from = 0; from < d; from += 64) { // as many sums as fit a small array
        double sums[64] = {0};
        size_t columns = min_size(64, d - from);
        for (int32_t p = first; p <= last; p++) {
            double weight = exp(score_ref(q, k + (size_t)p * d, d, scale) - largest) / total;
            for (size_t c = 0; c < columns; c++)
                sums[c] += weight * v[(size_t)p * d + from + c];
        }
        for (size_t c = 0; c < columns; c++)
            out[from + c] = (float)sums[c];
    }
}

void attention_ref(float *out, const float *q, size_t m, size_t n_heads, size_t n_kv_heads,
                   size_t d, const struct attention_query *queries, float scale) {
    for (size_t t = 0; t < m; t++)
        for (size_t head = 0; head < n_heads; head++) {
            const struct attention_query *query = &queries[t];
            size_t offset = head / (n_heads / n_kv_heads) * query->head_stride;
            size_t row = (t * n_heads + head) * d;
            head_ref(out + row, q + row, query->k + offset, query->v + offset, d, query->first,
                     query->last, scale);
        }
}

// Which queries and query heads make a block.
struct attention_part {
    size_t query, n_queries, kv_head, head, n_heads;
};

// True if the window of b touches or overlaps first … last, so that a block reads no position that
// none of its queries sees.
static bool windows_touch(int32_t first, int32_t last, const struct attention_query *b) {
    return b->first <= b->last && b->first <= last + 1 && first <= b->last + 1;
}

// How many queries from t on can be worked on together, at most `most`.
static size_t queries_together(const struct attention_call *call, size_t t, size_t most) {
    const struct attention_query *a = &call->queries[t];
    int32_t first = a->first, last = a->last;
    size_t n = 1;
    for (; a->first <= a->last && n < most && t + n < call->m; n++) {
        const struct attention_query *b = a + n;
        if (b->k != a->k || b->v != a->v || b->head_stride != a->head_stride ||
            !windows_touch(first, last, b))
            break;
        first = b->first < first ? b->first : first;
        last = b->last > last ? b->last : last;
    }
    return n;
}

// Steps through the parts of a call: heads fastest, then key/value heads, then queries. Starts from
// zeros; false after the last.
static bool next_part(const struct attention_call *call, struct attention_part *part) {
    size_t group = call->n_heads / call->n_kv_heads;
    size_t fit = ATTENTION_FLOATS / round_up(call->d, 16);
    size_t rows = call->tiles_rows ? call->tiles_rows : min_size(ATTENTION_ROWS, fit);
    part->head += part->n_heads;
    if (part->head == group) {
        part->head = 0;
        part->kv_head++;
    }
    if (part->kv_head == call->n_kv_heads) {
        part->kv_head = 0;
        part->query += part->n_queries;
        part->n_queries = 0;
    }
    if (part->query >= call->m)
        return false;
    if (part->n_queries == 0)
        part->n_queries = queries_together(call, part->query, rows / group > 1 ? rows / group : 1);
    part->n_heads = min_size(min_size(rows, group), group - part->head);
    return true;
}

static void block_open(struct attention_block *b, const struct attention_call *call,
                       const struct attention_part *part) {
    const struct attention_query *queries = call->queries + part->query;
    b->k = queries->k + part->kv_head * queries->head_stride;
    b->v = queries->v + part->kv_head * queries->head_stride;
    b->d = call->d;
    b->n_heads = part->n_heads;
    b->rows = part->n_queries * part->n_heads;
    b->tiles = call->tiles_rows && b->rows >= ATTENTION_TILES_MIN;
    b->d_padded = round_up(call->d, b->tiles ? 32 : 16);
    b->queries = queries;
    b->first = queries->first;
    b->last = queries->last;
    size_t head = part->kv_head * (call->n_heads / call->n_kv_heads) + part->head;
    b->offset = (part->query * call->n_heads + head) * call->d;
    for (size_t t = 0; t < part->n_queries; t++) {
        b->first = queries[t].first < b->first ? queries[t].first : b->first;
        b->last = queries[t].last > b->last ? queries[t].last : b->last;
        SIMD_CALL(attend_scale, b->q + t * part->n_heads * call->d,
                  call->q + b->offset + t * call->n_heads * call->d, part->n_heads * call->d,
                  call->scale);
    }
}

// a += b, both brought to the larger of their largest scores.
static void sums_add(struct attention_sums *a, const struct attention_sums *b, size_t rows,
                     size_t d_padded) {
    for (size_t r = 0; r < rows; r++) {
        if (b->total[r] == 0.0f) // the row sees none of this segment
            continue;
        float largest = a->largest[r] > b->largest[r] ? a->largest[r] : b->largest[r];
        float shrink_a = expf(a->largest[r] - largest), shrink_b = expf(b->largest[r] - largest);
        a->largest[r] = largest;
        a->total[r] = a->total[r] * shrink_a + b->total[r] * shrink_b;
        SIMD_CALL(attend_add, a->out + r * d_padded, shrink_a, b->out + r * d_padded, shrink_b,
                  d_padded);
    }
}

static void write_out(const struct attention_call *call, const struct attention_block *b,
                      const struct attention_sums *sums) {
    for (size_t r = 0; r < b->rows; r++) {
        const struct attention_query *query = &b->queries[r / b->n_heads];
        float *out =
            call->out + b->offset + (r / b->n_heads * call->n_heads + r % b->n_heads) * call->d;
        float factor = query->first <= query->last ? 1.0f / sums->total[r] : 0.0f;
        SIMD_CALL(attend_scale, out, sums->out + r * b->d_padded, call->d, factor);
    }
}

static int32_t first_segment(const struct attention_block *b) {
    return b->first / ATTENTION_SEGMENT;
}

static int32_t segments_of(const struct attention_block *b) {
    return b->first <= b->last ? b->last / ATTENTION_SEGMENT - first_segment(b) + 1 : 0;
}

// Segment s of those the block sees, into fresh sums.
static void attend_one(const struct attention_block *b, int32_t s, struct attention_sums *out) {
    int32_t first = (first_segment(b) + s) * ATTENTION_SEGMENT;
    int32_t last = first + ATTENTION_SEGMENT - 1;
    first = first > b->first ? first : b->first;
    last = last < b->last ? last : b->last;
    if (b->tiles)
        attention_tiles_segment(b, out, first, last);
    else
        SIMD_CALL(attend_segment, b, out, first, last);
}

static void sums_start(struct attention_sums *sums, const struct attention_block *b) {
    memset(sums->out, 0, b->rows * b->d_padded * sizeof *sums->out);
    for (size_t r = 0; r < b->rows; r++) {
        sums->total[r] = 0;
        sums->largest[r] = -INFINITY;
    }
}

static void attend(const struct attention_call *call, const struct attention_part *part) {
    struct attention_block block;
    struct attention_sums sums, one;
    block_open(&block, call, part);
    if (segments_of(&block) == 0)
        sums_start(&sums, &block);
    else
        attend_one(&block, 0, &sums);
    for (int32_t s = 1; s < segments_of(&block); s++) {
        attend_one(&block, s, &one);
        sums_add(&sums, &one, block.rows, block.d_padded);
    }
    write_out(call, &block, &sums);
}

// Few parts, long contexts: the segments of all parts are the team's chunks, each with its own
// sums.
struct attention_split {
    struct attention_block *blocks;
    struct attention_sums *sums; // of each segment, those of block 0 first
};

static void attend_chunk(void *context, size_t chunk) {
    const struct attention_split *split = context;
    const struct attention_block *b = split->blocks;
    size_t s = chunk;
    for (; s >= (size_t)segments_of(b); b++)
        s -= (size_t)segments_of(b);
    attend_one(b, (int32_t)s, &split->sums[chunk]);
}

// False, with nothing done, when memory is short.
static bool attend_split(const struct attention_call *call, size_t parts) {
    struct attention_split split;
    struct attention_part part = {0};
    struct attention_sums sums;
    size_t segments = 0, at = 0;
    if (!(split.blocks = scratch_get(SCRATCH_BLOCKS, parts * sizeof *split.blocks)))
        return false;
    for (size_t i = 0; i < parts && next_part(call, &part); i++) {
        block_open(&split.blocks[i], call, &part);
        segments += (size_t)segments_of(&split.blocks[i]);
    }
    if (!(split.sums = scratch_get(SCRATCH_SUMS, (segments + 1) * sizeof *split.sums)))
        return false;
    team_run(segments, attend_chunk, &split);
    for (size_t i = 0; i < parts; i++) {
        const struct attention_block *b = &split.blocks[i];
        sums_start(&sums, b);
        for (int32_t s = 0; s < segments_of(b); s++)
            sums_add(&sums, &split.sums[at++], b->rows, b->d_padded);
        write_out(call, b, &sums);
    }
    return true;
}

// Many parts: they are the team's chunks.
struct attention_parts {
    const struct attention_call *call;
    struct attention_part *parts;
};

static void attend_part(void *context, size_t chunk) {
    const struct attention_parts *all = context;
    attend(all->call, &all->parts[chunk]);
}

// False, with nothing done, when memory is short.
static bool attend_parts(const struct attention_call *call, size_t parts) {
    struct attention_parts all = {call, scratch_get(SCRATCH_BLOCKS, parts * sizeof *all.parts)};
    struct attention_part part = {0};
    if (!all.parts)
        return false;
    for (size_t i = 0; i < parts && next_part(call, &part); i++)
        all.parts[i] = part;
    team_run(parts, attend_part, &all);
    return true;
}

static size_t multiply_adds(const struct attention_call *call) {
    size_t seen = 0;
    for (size_t t = 0; t < call->m; t++)
        if (call->queries[t].first <= call->queries[t].last)
            seen += (size_t)(call->queries[t].last - call->queries[t].first + 1);
    return seen * call->n_heads * call->d * 2;
}

static void attend_all(const struct attention_call *call) {
    assert(call->d <= ATTENTION_FLOATS && call->n_kv_heads > 0 &&
           call->n_heads % call->n_kv_heads == 0);
    size_t parts = 0, threads = threads_max();
    for (struct attention_part part = {0}; next_part(call, &part);)
        parts++;
    if (threads > 1 && multiply_adds(call) >= ATTENTION_PARALLEL_MIN &&
        (parts < 4 * threads ? attend_split(call, parts) : attend_parts(call, parts)))
        return;
    for (struct attention_part part = {0}; next_part(call, &part);)
        attend(call, &part);
}

void attention(float *out, const float *q, size_t m, size_t n_heads, size_t n_kv_heads, size_t d,
               const struct attention_query *queries, float scale) {
    attend_all(&(struct attention_call){out, q, m, n_heads, n_kv_heads, d, queries, scale, 0});
}

void attention_rounded(float *out, const float *q, size_t m, size_t n_heads, size_t n_kv_heads,
                       size_t d, const struct attention_query *queries, float scale) {
    attend_all(&(struct attention_call){out, q, m, n_heads, n_kv_heads, d, queries, scale,
                                        attention_tiles_rows(d)});
}
