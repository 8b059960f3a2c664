// Unit tests of postern.h, compiled for the machine they run on, as C and as C++.
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Memory that a test can refuse.
static bool refuse;
static void *give(size_t n) { return refuse ? NULL : malloc(n); }
#define malloc give
#include "postern.h"
#undef malloc

static int failures;
static const char *test_name;

#define CHECK(what)                                                            \
	do {                                                                       \
		if (!(what)) {                                                         \
			printf("native.c:%d: %s: %s\n", __LINE__, test_name, #what);       \
			failures++;                                                        \
		}                                                                      \
	} while (0)

// ---- A host that tells what it was asked ----

static uint32_t asked_code, asked_length, asked_capacity;
static int asked_times;
static uint8_t asked[1 << 20];
static int64_t answer_length;  // or an error
static uint8_t answer[1 << 17];
static char logged[2048];

void postern_import_log(int32_t level, const void *message, uint32_t length) { snprintf(logged, sizeof logged, "%d %.*s", (int)level, (int)length, (const char *)message); }

int64_t postern_import_op(uint32_t code, const void *in, uint32_t in_length, void *out, uint32_t out_capacity) {
	asked_code = code;
	asked_length = in_length;
	asked_capacity = out_capacity;
	asked_times++;
	if (in_length) memcpy(asked, in, in_length);
	if (answer_length > (int64_t)out_capacity) return POSTERN_TOO_SMALL;
	if (answer_length > 0) memcpy(out, answer, (size_t)answer_length);
	return answer_length;
}

static bool was(const void *octets, size_t n) { return asked_length == n && memcmp(asked, octets, n) == 0; }
#define WAS(octets) was("" octets, sizeof(octets) - 1)

// ---- A plugin that does what a test says ----

static void (*do_configure)(postern_stage *s, postern_result *r);
static void (*do_on)(const postern_event *e, postern_result *r);
static void configure(postern_stage *s, postern_result *r) {
	if (do_configure) do_configure(s, r);
}
static void on(const postern_event *e, postern_result *r) { do_on(e, r); }
POSTERN_PLUGIN(configure, on)

// frame writes an event with the slots given, NULL being absent, and hands it to the plugin.
static const postern_result *send_frame(int kind, uint32_t stage, const postern_string *slots, uint32_t count) {
	uint8_t *f = postern_native()->frame.data;
	uint32_t n = 32 + 8 * count;
	uint64_t time = 99, exchange = UINT64_MAX;
	memset(f, 0, n);
	f[4] = (uint8_t)kind;
	f[6] = POSTERN_PHASE_REQUEST;
	f[7] = 9;
	memcpy(f + 8, &stage, 4);
	memcpy(f + 12, &count, 4);
	memcpy(f + 16, &time, 8);
	memcpy(f + 24, &exchange, 8);
	for (uint32_t i = 0; i < count; i++) {
		if (!slots[i].data) continue;
		memcpy(f + 32 + 8 * i, &n, 4);
		memcpy(f + 36 + 8 * i, &slots[i].len, 4);
		memcpy(f + n, slots[i].data, slots[i].len);
		n += slots[i].len;
	}
	memcpy(f, &n, 4);
	if (kind == POSTERN_EVENT_CONFIGURE) postern_native_configure(n);
	else postern_native_on(n);
	return &postern_native()->result;
}

static const postern_result *event_of(void (*f)(const postern_event *e, postern_result *r)) {
	do_on = f;
	return send_frame(POSTERN_EVENT_REQUEST, 0, NULL, 0);
}

static bool holds(const postern_result *r, int action, const char *octets, size_t n) {
	return r->action == action && r->ops.len == n && memcmp(r->ops.data, octets, n) == 0;
}
#define HOLDS(r, action, octets) holds(r, action, "" octets, sizeof(octets) - 1)

// ---- Results ----

static void greet(const postern_event *e, postern_result *r) {
	(void)e;
	postern_set_header(r, POSTERN("x-greeting"), POSTERN("Welcome"));
	postern_append(r, POSTERN(", "));
	postern_append(r, POSTERN("Ada"));
}

static void every_operation(const postern_event *e, postern_result *r) {
	const int64_t ints[] = {1, -2};
	const postern_string strings[] = {POSTERN("a"), POSTERN("")};
	uint8_t memory[16];
	postern_buffer b = postern_buffer_of(memory, sizeof memory);
	(void)e;
	postern_append(r, POSTERN("dropped: nothing was written yet"));
	postern_add_header(r, POSTERN("a"), POSTERN("b"));
	postern_remove_header(r, POSTERN("c"));
	postern_set_attribute(r, POSTERN("s"), POSTERN("x"));
	postern_append_int(r, INT64_MIN);
	postern_set_attribute_ints(r, POSTERN("i"), ints, 2);
	postern_set_attribute_strings(r, POSTERN("l"), strings, 2);
	postern_write_bool(&b, true);
	postern_set_attribute_value(r, POSTERN("v"), postern_value_of(postern_written(&b)));
	postern_set_attribute_value(r, POSTERN("n"), postern_null());
	postern_replace_body(r, POSTERN("new"));
	postern_splice(r, 1, 2, POSTERN("put"));
	postern_drop_body(r);
	postern_respond(r, 404, POSTERN("no"), POSTERN("why"));
	postern_respond_body(r, POSTERN("t"), POSTERN("body"));
	postern_carry(r, POSTERN("c\0d"));
	postern_meter(r, POSTERN("m"), 258);
	postern_done(r);
}

static void fetching(const postern_event *e, postern_result *r) {
	const postern_field fields[] = {{POSTERN_LITERAL("h"), POSTERN_LITERAL("v")}};
	postern_request q;
	(void)e;
	memset(&q, 0, sizeof q);
	q.upstream = POSTERN("u");
	q.cache = 1;
	q.headers = fields;
	q.header_count = 1;
	postern_fetch(r, POSTERN("f"), &q);
	postern_await(r);
}

static void failing(const postern_event *e, postern_result *r) {
	static char why[3000];
	(void)e;
	memset(why, 'x', sizeof why);
	postern_set_header(r, POSTERN("lost"), POSTERN("lost"));
	postern_fail(r, postern_string_of(why, sizeof why));
	postern_fail(r, POSTERN("again"));
	postern_set_header(r, POSTERN("late"), POSTERN("late"));
	postern_append(r, POSTERN("late"));
	postern_done(r);
	postern_respond(r, 400, POSTERN("late"), POSTERN("late"));
}

static char many[1 << 16];

static void too_much(const postern_event *e, postern_result *r) {
	(void)e;
	for (int i = 0; i < 257; i++) postern_carry(r, postern_string_of(many, sizeof many));
}

static void the_most(const postern_event *e, postern_result *r) {
	uint32_t n = POSTERN_MAX_FRAME - 8;
	(void)e;
	postern_carry(r, POSTERN(""));
	for (; n >= sizeof many; n -= sizeof many) postern_append(r, postern_string_of(many, sizeof many));
	postern_append(r, postern_string_of(many, n));
}

static void long_name(const postern_event *e, postern_result *r) {
	(void)e;
	postern_set_header(r, postern_string_of(many, sizeof many), POSTERN("v"));
	postern_append(r, POSTERN("more"));
}

static void results(void) {
	CHECK(HOLDS(event_of(greet), POSTERN_ACTION_CONTINUE, "\1\0\12\0\14\0\0\0x-greetingWelcome, Ada"));
	CHECK(HOLDS(event_of(every_operation), POSTERN_ACTION_DONE,
		"\2\0\1\0\1\0\0\0" "ab"
		"\3\0\1\0\0\0\0\0" "c"
		"\4\0\1\0\32\0\0\0" "s" "\4\25\0\0\0x-9223372036854775808"
		"\4\0\1\0\27\0\0\0" "i" "\5\2\0\0\0\2\1\0\0\0\0\0\0\0\2\376\377\377\377\377\377\377\377"
		"\4\0\1\0\20\0\0\0" "l" "\5\2\0\0\0\4\1\0\0\0a\4\0\0\0\0"
		"\4\0\1\0\2\0\0\0" "v" "\1\1"
		"\4\0\1\0\1\0\0\0" "n" "\0"
		"\5\0\0\0\3\0\0\0" "new"
		"\6\0\0\0\13\0\0\0" "\1\0\0\0\2\0\0\0put"
		"\7\0\0\0\0\0\0\0"
		"\10\0\2\0\5\0\0\0" "no\224\1why"
		"\11\0\1\0\4\0\0\0" "tbody"
		"\12\0\0\0\3\0\0\0" "c\0d"
		"\14\0\1\0\10\0\0\0" "m\2\1\0\0\0\0\0\0"));
	CHECK(HOLDS(event_of(fetching), POSTERN_ACTION_AWAIT,
		"\13\0\1\0\104\0\0\0" "f" "\6\3\0\0\0"
		"\10\0\0\0upstream\4\1\0\0\0u"
		"\5\0\0\0cache\2\1\0\0\0\0\0\0\0"
		"\7\0\0\0headers\6\1\0\0\0\1\0\0\0h\4\1\0\0\0v"));
	const postern_result *r = event_of(failing);
	CHECK(r->action == POSTERN_ACTION_ERROR && r->ops.len == 8 + 12 + 2 + 1024 && memcmp(r->ops.data + 22, "xxx", 3) == 0);
	r = event_of(long_name);
	CHECK(r->action == POSTERN_ACTION_ERROR && memcmp(r->ops.data + 22, "a name in the result", 20) == 0);
	CHECK(HOLDS(event_of(greet), POSTERN_ACTION_CONTINUE, "\1\0\12\0\14\0\0\0x-greetingWelcome, Ada"));
	refuse = true;
	r = event_of(the_most);
	CHECK(r->action == POSTERN_ACTION_ERROR && memcmp(r->ops.data + 22, "the result does not fit", 23) == 0);
	refuse = false;
	r = event_of(the_most);
	CHECK(r->action == POSTERN_ACTION_CONTINUE && r->ops.len == POSTERN_MAX_FRAME && postern__u32(r->ops.data + 4) == POSTERN_MAX_FRAME - 8);
	r = event_of(too_much);
	CHECK(r->action == POSTERN_ACTION_ERROR && memcmp(r->ops.data + 22, "the result does not fit", 23) == 0);
	CHECK(HOLDS(event_of(greet), POSTERN_ACTION_CONTINUE, "\1\0\12\0\14\0\0\0x-greetingWelcome, Ada"));
}

// ---- Frames ----

static void look(const postern_event *e, postern_result *r) {
	postern_run run = postern_headers(e, 0);
	(void)r;
	CHECK(e->kind == POSTERN_EVENT_RESPONSE && e->phase == POSTERN_PHASE_REQUEST && e->stage == 3);
	CHECK(postern_time(e) == 99 && postern_exchange(e) == UINT64_MAX);
	CHECK(postern_end(e) && postern_gone(e) && !postern_stream(e) && !postern_truncated(e));
	CHECK(postern_equal(postern_carried(e), POSTERN("c")) && postern_present(postern_body(e)) && postern_body(e).len == 0);
	CHECK(postern_equal(postern_header(e, 0), POSTERN("a")));
	CHECK(postern_next(&run) && postern_next(&run) && postern_present(run.value) && run.value.len == 0 && postern_next(&run));
	CHECK(postern_equal(run.value, POSTERN("b")) && !postern_next(&run) && !postern_next(&run));
	run = postern_headers(e, 1);
	CHECK(postern_next_field(&run) && postern_equal(run.name, POSTERN("x")) && postern_equal(run.value, POSTERN("1")));
	CHECK(!postern_next_field(&run));
	CHECK(!postern_has(e, 2) && !postern_present(postern_header(e, 2)) && postern_kind(postern_value_in(e, 2)) == POSTERN_NULL);
	CHECK(postern_has(e, 3) && postern_equal(postern_text(postern_value_in(e, 3)), POSTERN("v")));
	CHECK(!postern_has(e, 4) && !postern_has(e, UINT32_MAX) && !postern_has(e, UINT32_MAX - 1));
	CHECK(e->data == NULL);
}

static void frames(void) {
	const postern_string none = postern_cstring(NULL);
	const postern_string slots[] = {
		POSTERN("c"), POSTERN(""), POSTERN("\1\0\0\0a\0\0\0\0\1\0\0\0b"), POSTERN("\1\0\0\0x\1\0\0\0" "1\1\0\0\0y"), none, POSTERN("\4\1\0\0\0v"),
	};
	do_on = look;
	CHECK(send_frame(POSTERN_EVENT_RESPONSE, 3, slots, 6)->action == POSTERN_ACTION_CONTINUE);
	// A frame that is not whole is answered, not believed.
	const uint32_t lengths[] = {0, 31, 79, UINT32_MAX};
	for (int i = 0; i < 4; i++) {
		postern_native_on(lengths[i]);
		CHECK(postern_native()->result.action == POSTERN_ACTION_ERROR);
	}
	postern_run_grow(postern_native(), 200000);
	CHECK(postern_native()->frame.cap >= 200000 && postern_native()->frame.cap <= 262144);
	uint32_t before = postern_native()->frame.cap;
	postern_run_grow(postern_native(), POSTERN_MAX_FRAME + 1);
	refuse = true;
	postern_run_grow(postern_native(), POSTERN_MAX_FRAME);
	CHECK(postern_native()->frame.cap == before && !postern_native()->frame.full);
	refuse = false;
	postern_run_grow(postern_native(), POSTERN_MAX_FRAME);
	CHECK(postern_native()->frame.cap >= POSTERN_MAX_FRAME);
}

// ---- Values ----

static void values(void) {
	uint8_t memory[300];
	postern_buffer b = postern_buffer_of(memory, sizeof memory);
	postern_write_object(&b, 6);
	postern_write_key(&b, POSTERN("n"));
	postern_write_null(&b);
	postern_write_key(&b, POSTERN("i"));
	postern_write_int(&b, INT64_MIN);
	postern_write_key(&b, POSTERN("f"));
	postern_write_float(&b, -2.75);
	postern_write_key(&b, POSTERN("b"));
	postern_write_bool(&b, true);
	postern_write_key(&b, POSTERN("s"));
	postern_write_string(&b, POSTERN("text"));
	postern_write_key(&b, POSTERN("l"));
	postern_write_list(&b, 2);
	postern_write_int(&b, 1);
	postern_write_value(&b, postern_null());
	postern_string raw = postern_written(&b);
	postern_value v = postern_value_of(raw);
	CHECK(v.len == raw.len && postern_len(v) == 6 && postern_kind(v) == POSTERN_OBJECT);
	CHECK(postern_int(postern_member(v, POSTERN("i"))) == INT64_MIN);
	CHECK(postern_float(postern_member(v, POSTERN("f"))) == -2.75 && postern_int(postern_member(v, POSTERN("f"))) == -2);
	CHECK(postern_bool(postern_member(v, POSTERN("b"))) && postern_equal(postern_text(postern_member(v, POSTERN("s"))), POSTERN("text")));
	CHECK(postern_int(postern_at(postern_member(v, POSTERN("l")), 0)) == 1);
	const postern_value nothing[] = {
		postern_null(), postern_member(v, POSTERN("n")), postern_member(v, POSTERN("none")), postern_at(v, 0), postern_at(postern_member(v, POSTERN("l")), 1),
		postern_at(postern_member(v, POSTERN("l")), 2), postern_member(postern_member(v, POSTERN("l")), POSTERN("i")), postern_member(postern_member(v, POSTERN("s")), POSTERN("i")),
	};
	for (size_t i = 0; i < sizeof nothing / sizeof nothing[0]; i++) {
		CHECK(postern_kind(nothing[i]) == POSTERN_NULL && !postern_bool(nothing[i]) && postern_int(nothing[i]) == 0 && postern_float(nothing[i]) == 0);
		CHECK(!postern_present(postern_text(nothing[i])) && postern_len(nothing[i]) == 0);
	}
	for (uint32_t n = 0; n < raw.len; n++) {
		char *part = (char *)malloc(n + 1); // alone, so that a sanitizer sees what is read behind it
		memcpy(part, raw.data, n);
		CHECK(postern_value_of(postern_string_of(part, n)).raw == NULL);
		free(part);
	}
	// Numbers that no int holds become the nearest one.
	const double floats[] = {1e300, -1e300, 9223372036854775808.0, -9223372036854775808.0, 0.0 / 1e-300, 1.5};
	const int64_t ints[] = {INT64_MAX, INT64_MIN, INT64_MAX, INT64_MIN, 0, 1};
	for (int i = 0; i < 6; i++) {
		b.len = 0;
		postern_write_float(&b, floats[i]);
		CHECK(postern_int(postern_value_of(postern_written(&b))) == ints[i]);
	}
	memcpy(memory + 1, "\0\0\0\0\0\0\370\177", 8);
	CHECK(postern_int(postern_value_of(postern_string_of(memory, 9))) == 0); // not a number
	// Deeper than 32 is malformed.
	for (uint32_t depth = 32; depth <= 33; depth++) {
		b = postern_buffer_of(memory, sizeof memory);
		for (uint32_t i = 0; i < depth; i++) postern_write_list(&b, 1);
		postern_write_null(&b);
		CHECK((postern_kind(postern_value_of(postern_written(&b))) == POSTERN_LIST) == (depth == 32));
	}
	// A buffer that is full stays what it was, and says so.
	b = postern_buffer_of(memory, 4);
	postern_add(&b, POSTERN("abc"));
	postern_add(&b, POSTERN("de"));
	postern_add(&b, POSTERN("f"));
	CHECK(b.full && b.len == 3 && !postern_present(postern_written(&b)));
}

// ---- Stages and memory ----

static int stage_numbers[40];

static void keep_number(postern_stage *s, postern_result *r) {
	(void)r;
	CHECK(s->phase == POSTERN_PHASE_REQUEST && postern_kind(s->config) == POSTERN_NULL && s->data == NULL);
	stage_numbers[s->number] = (int)s->number;
	s->data = &stage_numbers[s->number];
}

static void check_number(const postern_event *e, postern_result *r) {
	(void)r;
	CHECK(*(int *)e->data == (int)e->stage);
}

static void refuse_stage(postern_stage *s, postern_result *r) {
	postern_fail(r, postern_text(postern_member(s->config, POSTERN("why"))));
}

static void stages(void) {
	do_configure = keep_number;
	for (uint32_t i = 0; i < 40; i++) CHECK(HOLDS(send_frame(POSTERN_EVENT_CONFIGURE, i, NULL, 0), POSTERN_ACTION_CONTINUE, ""));
	do_on = check_number;
	for (uint32_t i = 0; i < 40; i++) send_frame(POSTERN_EVENT_REQUEST, i, NULL, 0);
	do_configure = refuse_stage;
	const postern_string slots[] = {postern_cstring(NULL), POSTERN("\6\1\0\0\0\3\0\0\0why\4\5\0\0\0wrong")};
	const postern_result *r = send_frame(POSTERN_EVENT_CONFIGURE, 0, slots, 2);
	CHECK(r->action == POSTERN_ACTION_ERROR && r->ops.len == 27 && memcmp(r->ops.data + 22, "wrong", 5) == 0);
	do_configure = NULL;
	refuse = true;
	CHECK(send_frame(POSTERN_EVENT_CONFIGURE, 100000, NULL, 0)->action == POSTERN_ACTION_ERROR);
	refuse = false;

	postern_host *h = &postern_native()->host;
	char text[] = "text";
	postern_string kept = postern_keep(h, postern_cstring(text));
	text[0] = 'x';
	CHECK(postern_equal(kept, POSTERN("text")) && !postern_present(postern_keep(h, postern_cstring(NULL))) && postern_present(postern_keep(h, POSTERN(""))));
	uint8_t *small = (uint8_t *)postern_alloc(h, 3), *next = (uint8_t *)postern_alloc(h, 100000);
	CHECK(small && next && (uintptr_t)small % 16 == 0 && (uintptr_t)next % 16 == 0 && next[0] == 0 && next[99999] == 0);
	CHECK(postern_alloc(h, (size_t)1 << 31) == NULL);
	refuse = true;
	CHECK(postern_alloc(h, 1 << 20) == NULL && !postern_present(postern_keep(h, postern_string_of(next, 90000))));
	refuse = false;
}

// ---- Host operations ----

static void operations(void) {
	postern_host *h = &postern_native()->host;
	postern_string v;
	int64_t n = 0;
	postern_log(POSTERN_LOG_WARN, POSTERN("careful"));
	CHECK(strcmp(logged, "2 careful") == 0);
	answer_length = 8;
	memcpy(answer, "\2\1\0\0\0\0\0\0", 8);
	CHECK(postern_now(h, &n) == POSTERN_OK && n == 258 && asked_code == 1 && asked_length == 0);
	CHECK(postern_count(h, POSTERN("key"), -1, 2, &n) == POSTERN_OK && n == 258 && asked_code == 7);
	CHECK(WAS("\377\377\377\377\377\377\377\377\2\0\0\0\0\0\0\0key"));
	answer_length = 7;
	CHECK(postern_count(h, POSTERN("key"), 1, 0, &n) == POSTERN_INVALID);
	answer_length = 0;
	CHECK(postern_put(h, POSTERN("k"), POSTERN("v\0"), 3) == POSTERN_OK && asked_code == 4 && WAS("\3\0\0\0\0\0\0\0\1\0\0\0kv\0"));
	CHECK(postern_cas(h, POSTERN("k"), POSTERN(""), POSTERN("v"), 0) == POSTERN_OK && asked_code == 5 && WAS("\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0kv"));
	CHECK(postern_cas(h, POSTERN("k"), postern_cstring(NULL), POSTERN("v"), 0) == POSTERN_OK && WAS("\0\0\0\0\0\0\0\0\1\0\0\0\377\377\377\377kv"));
	CHECK(postern_delete(h, POSTERN("k")) == POSTERN_OK && asked_code == 6 && WAS("k"));
	CHECK(postern_release(h, POSTERN("h")) == POSTERN_OK && asked_code == 11 && WAS("h"));
	CHECK(postern_cache_put(h, POSTERN("k"), POSTERN("v"), 3) == POSTERN_OK && asked_code == 13 && WAS("\3\0\0\0\0\0\0\0\1\0\0\0kv"));
	uint8_t octets[8];
	CHECK(postern_random(h, octets, 8) == POSTERN_OK && asked_code == 2 && asked_capacity == 8);
	// Answers: small ones at once, large ones in a larger buffer, which is kept.
	memcpy(answer, "value", 5);
	answer_length = 5;
	asked_times = 0;
	CHECK(postern_get(h, POSTERN("k"), &v) == POSTERN_OK && postern_equal(v, POSTERN("value")) && asked_times == 1);
	answer_length = 65536;
	CHECK(postern_cache_get(h, POSTERN("k"), &v) == POSTERN_OK && v.len == 65536 && asked_times == 3 && asked_code == 12);
	CHECK(postern_get(h, POSTERN("k"), &v) == POSTERN_OK && v.len == 65536 && asked_times == 4);
	answer_length = 65537;
	CHECK(postern_get(h, POSTERN("k"), &v) == POSTERN_TOO_SMALL && !postern_present(v));
	for (int e = POSTERN_UNKNOWN; e < 0; e++) {
		answer_length = e;
		CHECK(postern_get(h, POSTERN("k"), &v) == e && !postern_present(v) && postern_error_text(e).len > 0);
	}
	// Values.
	const char who[] = "\6\4\0\0\0\7\0\0\0account\4\1\0\0\0a\3\0\0\0key\4\1\0\0\0k\4\0\0\0name\4\0\0\0\0\6\0\0\0scopes\5\1\0\0\0\4\1\0\0\0s";
	postern_identity id;
	answer_length = sizeof who - 1;
	memcpy(answer, who, sizeof who);
	CHECK(postern_key(h, POSTERN("secret"), &id) == POSTERN_OK && asked_code == 8 && WAS("secret"));
	CHECK(postern_equal(id.account, POSTERN("a")) && postern_equal(id.key, POSTERN("k")) && id.name.len == 0 && postern_len(id.scopes) == 1);
	const char receipt_octets[] = "\6\2\0\0\0\6\0\0\0amount\4\1\0\0\0" "1\7\0\0\0balance\4\1\0\0\0" "2";
	postern_receipt receipt;
	answer_length = sizeof receipt_octets - 1;
	memcpy(answer, receipt_octets, sizeof receipt_octets);
	CHECK(postern_settle(h, POSTERN("h"), postern_null(), true, postern_null(), &receipt) == POSTERN_OK && asked_code == 10);
	CHECK(postern_equal(receipt.amount, POSTERN("1")) && postern_equal(receipt.balance, POSTERN("2")));
	CHECK(WAS("\6\4\0\0\0\4\0\0\0hold\4\1\0\0\0h\5\0\0\0usage\0\11\0\0\0estimated\1\1\4\0\0\0tags\0"));
	postern_held held;
	CHECK(postern_hold(h, POSTERN("a"), POSTERN("m"), postern_null(), &held) == POSTERN_OK && asked_code == 9 && !postern_present(held.hold));
	CHECK(WAS("\6\3\0\0\0\7\0\0\0account\4\1\0\0\0a\5\0\0\0model\4\1\0\0\0m\3\0\0\0max\0"));
	answer_length = POSTERN_EXPIRED;
	CHECK(postern_key(h, POSTERN("secret"), &id) == POSTERN_EXPIRED && !postern_present(id.account) && postern_kind(id.scopes) == POSTERN_NULL);
	// An input larger than any the host takes is not sent.
	static char large[200000];
	asked_times = 0;
	CHECK(postern_put(h, POSTERN("k"), postern_string_of(large, sizeof large), 0) == POSTERN_INVALID && asked_times == 0);
	answer_length = 0;
	CHECK(postern_put(h, POSTERN("k"), postern_string_of(large, 190000), 0) == POSTERN_OK && asked_length == 190013);
	CHECK(postern_op(99, POSTERN("in"), octets, 8) == 0 && asked_code == 99 && WAS("in"));
}

int main(void) {
	const struct {
		const char *name;
		void (*run)(void);
	} tests[] = {{"results", results}, {"frames", frames}, {"values", values}, {"stages", stages}, {"operations", operations}};
	for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
		test_name = tests[i].name;
		tests[i].run();
	}
	return failures != 0;
}
