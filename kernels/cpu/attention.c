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
//     queries of one cache ──> blocks of at most 64 (query, head) rows; in tiles 256
//     cached positions ──────> segments of 512 keys, of which 64 are scored at a time; in tiles 128
//
// The scores of rows times keys stay in the L2 cache. Each segment starts its own sums, which are
// added up in the order of the segments, whether one thread does them all (prefill: threads share
// the blocks) or several (decode: threads share the segments of all blocks). A row's sums know
// nothing of the other rows. So the result depends neither on the number of threads nor on which
// queries came together, except that enough of them may go into tiles of bfloat16
// (attention_tiles.c).

// Multiply-adds below which waking the threads costs more than they save.
#define ATTENTION_PARALLEL_MIN ((size_t)1 << 17)
// Floats of sums that threads may need to share segments of blocks that could keep all of them busy
// anyway: 64 MB.
#define ATTENTION_SPLIT_MAX ((size_t)1 << 24)

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

// Which queries and query heads make a block. Queries that can be worked on together are a run, and
// all blocks of a run are in tiles or none is: the number of threads may decide how it is cut.
struct attention_part {
    size_t query, n_queries, kv_head, head, n_heads;
    size_t run_end;
    bool tiles;
};

// True if the window of b touches or overlaps first … last, so that a block reads no position that
// none of its queries sees.
static bool windows_touch(int32_t first, int32_t last, const struct attention_query *b) {
    return b->first <= b->last && b->first <= last + 1 && first <= b->last + 1;
}

static size_t rows_of_block(const struct attention_call *call, bool tiles) {
    size_t fit = ATTENTION_FLOATS / round_up(call->d, 16);
    return tiles ? call->tiles_rows : min_size(ATTENTION_ROWS, fit);
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

// The run that begins at part->query, and as much of it as makes a block.
static void open_queries(const struct attention_call *call, struct attention_part *part) {
    size_t group = call->n_heads / call->n_kv_heads;
    if (part->query >= part->run_end) {
        size_t run = queries_together(call, part->query, call->m);
        part->run_end = part->query + run;
        part->tiles = call->tiles_rows && run * group >= ATTENTION_TILES_MIN;
    }
    size_t rows = rows_of_block(call, part->tiles);
    size_t most = min_size(rows > group ? rows / group : 1, part->run_end - part->query);
    part->n_queries = queries_together(call, part->query, most);
}

// Steps through the parts of a call: heads fastest, then key/value heads, then queries. Starts from
// zeros; false after the last.
static bool next_part(const struct attention_call *call, struct attention_part *part) {
    size_t group = call->n_heads / call->n_kv_heads;
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
        open_queries(call, part);
    part->n_heads = min_size(min_size(rows_of_block(call, part->tiles), group), group - part->head);
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
    b->tiles = part->tiles;
    b->d_padded = round_up(call->d, part->tiles ? 32 : 16);
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
        if (query->first <= query->last)
            SIMD_CALL(attend_scale, out, sums->out + r * b->d_padded, call->d,
                      1.0f / sums->total[r]);
        else
            memset(out, 0, call->d * sizeof *out); // no segment may have made sums
    }
}

static int32_t first_segment(const struct attention_block *b) {
    return b->first / ATTENTION_SEGMENT;
}

static int32_t segments_of(const struct attention_block *b) {
    return b->first <= b->last ? b->last / ATTENTION_SEGMENT - first_segment(b) + 1 : 0;
}

// Segment s of those the block sees.
static void attend_one(const struct attention_block *b, int32_t s, struct attention_sums *out) {
    int32_t first = (first_segment(b) + s) * ATTENTION_SEGMENT;
    int32_t last = first + ATTENTION_SEGMENT - 1;
    first = first > b->first ? first : b->first;
    last = last < b->last ? last : b->last;
    for (size_t r = 0; r < round_up(b->rows, b->tiles ? 32 : 1); r++) {
        out->total[r] = 0;
        out->largest[r] = -INFINITY;
    }
    if (b->tiles) {
        attention_tiles_segment(b, out, first, last);
    } else {
        memset(out->out, 0, b->rows * b->d_padded * sizeof *out->out);
        SIMD_CALL(attend_segment, b, out, first, last);
    }
    for (size_t r = 0; r < b->rows; r++) // others' values times 0, which may not be 0
        if (out->total[r] == 0.0f)
            memset(out->out + r * b->d_padded, 0, b->d_padded * sizeof *out->out);
}

static void attend(const struct attention_call *call, const struct attention_part *part) {
    struct attention_block block;
    struct attention_sums sums, one;
    block_open(&block, call, part);
    for (int32_t s = 0; s < segments_of(&block); s++) {
        attend_one(&block, s, s ? &one : &sums);
        if (s)
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
        struct attention_sums *first = &split.sums[at];
        for (int32_t s = 1; s < segments_of(b); s++)
            sums_add(first, first + s, b->rows, b->d_padded);
        write_out(call, b, first);
        at += (size_t)segments_of(b);
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

// Whether threads share the segments of blocks: if there are too few of these, or not quite enough
// and it takes no more than so much memory.
static bool split_wanted(const struct attention_call *call, size_t parts, size_t threads) {
    size_t segments = 0; // of the query that sees most
    for (size_t t = 0; t < call->m; t++) {
        const struct attention_query *q = &call->queries[t];
        size_t of_it =
            q->first <= q->last ? (size_t)(q->last - q->first) / ATTENTION_SEGMENT + 2 : 0;
        segments = of_it > segments ? of_it : segments;
    }
    size_t floats = call->m * call->n_heads * round_up(call->d, 16);
    return parts < threads || (parts < 4 * threads && floats * segments <= ATTENTION_SPLIT_MAX);
}

static size_t count_parts(const struct attention_call *call) {
    size_t parts = 0;
    for (struct attention_part part = {0}; next_part(call, &part);)
        parts++;
    return parts;
}

static void attend_all(const struct attention_call *call) {
    assert(call->d <= ATTENTION_FLOATS && call->n_kv_heads > 0 &&
           call->n_heads % call->n_kv_heads == 0);
    size_t parts = count_parts(call), threads = threads_max();
    if (threads > 1 && multiply_adds(call) >= ATTENTION_PARALLEL_MIN &&
        (split_wanted(call, parts, threads) ? attend_split(call, parts)
                                            : attend_parts(call, parts)))
        return;
    for (struct attention_part part = {0}; next_part(call, &part);)
        attend(call, &part);
}

void attention(float *out, const float *q, size_t m, size_t n_heads, size_t n_kv_heads, size_t d,
               const struct attention_query *queries, float scale) {
    attend_all(&(struct attention_call){out, q, m, n_heads, n_kv_heads, d, queries, scale, 0});
}

// Rows of a block that leave enough blocks for all threads: what is in one together changes no sum.
static size_t tiles_rows(size_t rows, size_t d) {
    size_t most = attention_tiles_rows(d);
    while (most > 2 * ATTENTION_TILES_MIN && rows < most * 4 * threads_max())
        most = most / 2 / ATTENTION_TILES_MIN * ATTENTION_TILES_MIN;
    return most;
}

void attention_rounded(float *out, const float *q, size_t m, size_t n_heads, size_t n_kv_heads,
                       size_t d, const struct attention_query *queries, float scale) {
    attend_all(&(struct attention_call){out, q, m, n_heads, n_kv_heads, d, queries, scale,
                                        tiles_rows(m * n_heads, d)});
}
