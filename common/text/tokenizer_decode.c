// Ids to text. One machine serves whole texts and streams: token in, text out, with the little
// state that reaches from one token to the next (a character cut in two, a run of byte tokens,
// spaces to strip at the very beginning). So a stream and a whole decoding cannot differ.
#include "text/tokenizer_internal.h"

#include "text/utf8.h"

// Appends what has left the decoder's steps, but for what is stripped off the beginning.
static bool emit(const struct tokenizer *t, struct token_decoding *d, const char *text, size_t size,
                 struct bytes *out, struct error *err) {
    size_t strip = strlen(t->decoder.strip);
    while (!d->begun && size) {
        bool stripped = d->n_stripped < t->decoder.strip_start && size >= strip &&
                        memcmp(text, t->decoder.strip, strip) == 0;
        d->begun = !stripped;
        if (stripped)
            text += strip, size -= strip, d->n_stripped++;
    }
    return bytes_append(out, text, size, err);
}

// ---- byte-level: characters stand for bytes, and a token may end within a character

static bool map_bytes(const struct tokenizer *t, const char *text, size_t size, struct bytes *out,
                      struct error *err) {
    size_t before = out->size;
    for (size_t i = 0; i < size; i += utf8_size(text[i])) {
        uint32_t c = utf8_code(text + i);
        if (c >= BYTE_LEVEL_END || t->alphabet[c] < 0) {
            out->size = before; // not of this alphabet: the token is text as it stands
            return bytes_append(out, text, size, err);
        }
        char byte = (char)t->alphabet[c];
        if (!bytes_append(out, &byte, 1, err))
            return false;
    }
    return true;
}

// Emits the held bytes up to a character that is still incomplete; `all` replaces that, too.
static bool emit_complete(const struct tokenizer *t, struct token_decoding *d, bool all,
                          struct bytes *out, struct error *err) {
    size_t done = 0, size = d->held.size;
    while (done < size) {
        const char *text = d->held.data + done;
        size_t valid = utf8_valid_prefix(text, size - done);
        if (!emit(t, d, text, valid, out, err))
            return false;
        done += valid;
        if (done == size)
            break;
        struct utf8_char c = utf8_read(d->held.data + done, size - done);
        if (c.cut_short && !all)
            break;
        if (!emit(t, d, UTF8_REPLACEMENT, 3, out, err))
            return false;
        done += c.size;
    }
    if (done)
        memmove(d->held.data, d->held.data + done, size - done);
    d->held.size = size - done;
    return true;
}

// ---- byte fallback: a run of byte tokens is text if it is valid as a whole

static int byte_token(const char *text, size_t size) {
    if (size != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    int value = 0;
    for (int i = 3; i < 5; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9'                 ? c - '0'
                    : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                         : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

static bool end_byte_run(const struct tokenizer *t, struct token_decoding *d, struct bytes *out,
                         struct error *err) {
    size_t n = d->held.size;
    d->held.size = 0;
    if (!n)
        return true;
    if (utf8_valid_prefix(d->held.data, n) == n)
        return emit(t, d, d->held.data, n, out, err);
    for (size_t i = 0; i < n; i++)
        if (!emit(t, d, UTF8_REPLACEMENT, 3, out, err))
            return false;
    return true;
}

// ---- one token

static bool replace(const struct text_replace *r, bool first, const char *text, size_t size,
                    struct bytes *out, struct error *err) {
    size_t from = strlen(r->from), to = first && r->drop_in_first ? 0 : strlen(r->to);
    for (const char *at; (at = memmem(text, size, r->from, from)); text = at + from) {
        size_t before = (size_t)(at - text);
        if (!bytes_append(out, text, before, err) || !bytes_append(out, r->to, to, err))
            return false;
        size -= before + from;
    }
    return bytes_append(out, text, size, err);
}

static bool decode_plain(const struct tokenizer *t, struct token_decoding *d, const char *text,
                         size_t size, struct bytes *out, struct error *err) {
    struct bytes work[2] = {{0}, {0}};
    bool ok = true;
    for (size_t i = 0; ok && i < t->decoder.n_replace; i++) {
        struct bytes *to = &work[i & 1];
        to->size = 0;
        ok = replace(&t->decoder.replace[i], d->n_tokens == 0, text, size, to, err);
        text = to->data, size = to->size;
    }
    int byte = ok && t->decoder.byte_fallback ? byte_token(text, size) : -1;
    if (ok && byte >= 0)
        ok = bytes_append(&d->held, &(char){(char)byte}, 1, err);
    else
        ok = ok && end_byte_run(t, d, out, err) && emit(t, d, text, size, out, err);
    bytes_free(&work[0]);
    bytes_free(&work[1]);
    return ok;
}

static const char *token_text(const struct tokenizer *t, int32_t id, size_t *size) {
    const struct added_token *added = added_token_of(t, id);
    if (!added)
        return vocab_text(&t->vocab, id, size);
    *size = strlen(added->content);
    return added->content;
}

static bool decode_token(const struct tokenizer *t, struct token_decoding *d, int32_t id,
                         bool skip_special, struct bytes *out, struct error *err) {
    if (id < 0 || (size_t)id >= tokenizer_vocab_size(t))
        return error_set(err, "token id %d is outside the vocabulary of %zu", id,
                         tokenizer_vocab_size(t));
    size_t size;
    const char *text = token_text(t, id, &size);
    if (!text || (skip_special && tokenizer_is_special(t, id)))
        return true;
    bool ok;
    if (t->decoder.byte_level)
        ok = map_bytes(t, text, size, &d->held, err) && emit_complete(t, d, false, out, err);
    else
        ok = (!t->decoder.joined_by_spaces || !d->n_tokens || bytes_append(out, " ", 1, err)) &&
             decode_plain(t, d, text, size, out, err);
    d->n_tokens++;
    return ok;
}

static bool decode_end(const struct tokenizer *t, struct token_decoding *d, struct bytes *out,
                       struct error *err) {
    return t->decoder.byte_level ? emit_complete(t, d, true, out, err)
                                 : end_byte_run(t, d, out, err);
}

char *tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                       size_t *size, struct error *err) {
    struct token_decoding d = {0};
    struct bytes out = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++)
        ok = decode_token(t, &d, ids[i], skip_special, &out, err);
    ok = ok && decode_end(t, &d, &out, err) && bytes_append(&out, "", 1, err);
    bytes_free(&d.held);
    if (!ok) {
        bytes_free(&out);
        return NULL;
    }
    if (size)
        *size = out.size - 1;
    return out.data;
}

void token_stream_init(struct token_stream *s, const struct tokenizer *t) {
    *s = (struct token_stream){.tokenizer = t};
}

void token_stream_free(struct token_stream *s) {
    bytes_free(&s->decoding.held);
    bytes_free(&s->text);
}

// The text of the last call, with a NUL behind it that its size does not count.
static const char *stream_text(struct token_stream *s, bool ok, struct error *err) {
    if (!ok || !bytes_append(&s->text, "", 1, err))
        return NULL;
    s->text.size--;
    return s->text.data;
}

const char *token_stream_push(struct token_stream *s, int32_t id, struct error *err) {
    s->text.size = 0;
    return stream_text(s, decode_token(s->tokenizer, &s->decoding, id, true, &s->text, err), err);
}

const char *token_stream_flush(struct token_stream *s, struct error *err) {
    s->text.size = 0;
    return stream_text(s, decode_end(s->tokenizer, &s->decoding, &s->text, err), err);
}
