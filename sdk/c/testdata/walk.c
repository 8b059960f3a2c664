// walk reads frames from standard input, each with its length before it as u32, and answers each with the action as u8 and a u64: a
// hash of everything that postern.h reads in it. The test does the same walk with the Go SDK, and wants the same hash. Built with
// the address sanitizer, an octet read beyond a frame ends it.
#include <stdio.h>

#include "postern.h"

static uint64_t hash;

static void octet(uint8_t c) { hash = (hash ^ c) * 0x100000001b3u; }

static void number(uint64_t n) {
	for (int i = 0; i < 8; i++) octet((uint8_t)(n >> 8 * i));
}

static void octets(postern_string s) {
	number(postern_present(s) ? s.len : UINT64_MAX);
	for (uint32_t i = 0; i < s.len; i++) octet((uint8_t)s.data[i]);
}

static void value(postern_value v) {
	double f = postern_float(v);
	uint64_t bits;
	uint32_t n = 0;
	postern_members m = postern_members_of(v);
	__builtin_memcpy(&bits, &f, sizeof bits);
	number((uint64_t)postern_kind(v));
	number(postern_bool(v));
	number(postern_kind(v) == POSTERN_INT ? (uint64_t)postern_int(v) : 0);
	number(bits);
	octets(postern_text(v));
	number(postern_len(v));
	octets(postern_raw(v));
	while (postern_next_member(&m)) {
		octets(m.key);
		value(m.value);
		if (n++ == 1) {  // looking up is linear
			octets(postern_raw(postern_member(v, m.key)));
			octets(postern_raw(postern_at(v, 1)));
		}
	}
	octets(postern_raw(postern_at(v, n)));
	octets(postern_raw(postern_member(v, POSTERN("k"))));
}

static void configure(postern_stage *s, postern_result *r) { (void)s, (void)r; }

static void on(const postern_event *e, postern_result *r) {
	(void)r;
	hash = 0xcbf29ce484222325u;
	number((uint64_t)e->kind);
	number((uint64_t)e->phase);
	number(e->stage);
	number((uint64_t)postern_time(e));
	number(postern_exchange(e));
	number(postern_end(e) | postern_stream(e) << 1 | postern_truncated(e) << 2 | postern_gone(e) << 3);
	octets(postern_carried(e));
	octets(postern_body(e));
	for (uint32_t slot = 0; slot < 8; slot++) {
		postern_run run = postern_headers(e, slot), fields = run;
		number(postern_has(e, slot));
		octets(postern_header(e, slot));
		while (postern_next(&run)) octets(run.value);
		while (postern_next_field(&fields)) {
			octets(fields.name);
			octets(fields.value);
		}
		value(postern_value_in(e, slot));
	}
	postern_answer a = postern_fetched(e, POSTERN("k"));
	number(a.found);
	number((uint64_t)(int64_t)(postern_kind(postern_answers(e)) == POSTERN_OBJECT));
	octets(a.body);
	number(a.cached);
}

POSTERN_PLUGIN(configure, on)

void postern_import_log(int32_t level, const void *message, uint32_t length) { (void)level, (void)message, (void)length; }
int64_t postern_import_op(uint32_t code, const void *in, uint32_t in_length, void *out, uint32_t out_capacity) {
	(void)code, (void)in, (void)in_length, (void)out, (void)out_capacity;
	return POSTERN_UNKNOWN;
}

int main(void) {
	uint32_t n;
	while (fread(&n, 4, 1, stdin) == 1) {
		postern_buffer *frame = &postern_native()->frame;
		frame->data = (uint8_t *)malloc(n ? n : 1); // no octet more than there are
		frame->cap = n;
		if (n && fread(frame->data, n, 1, stdin) != 1) return 1;
		hash = 0;
		postern_native_on(n);
		free(frame->data);
		uint8_t action = (uint8_t)postern_native()->result.action;
		fwrite(&action, 1, 1, stdout);
		fwrite(&hash, 8, 1, stdout);
		fflush(stdout);
	}
	return 0;
}
