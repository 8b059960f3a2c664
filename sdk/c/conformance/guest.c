// The C SDK's conformance guest: it does what a script says and tells what it saw. What it has to do is written in
// sdk/conformance/README.md; plugin.hcl is the manifest all guests share.
#include "postern.h"

enum {
	SLOT_DO = 6,       // argument do
	MAX_SAW = 16000,   // octets of what is told
	MAX_KEPT = 1024,   // octets of what a stage keeps of its set-up
	MAX_STAGES = 16,
	MAX_WORDS = 4096,  // of a command
};

// What runs: one script at a time.
static struct {
	const postern_event *event;  // NULL while a stage is configured
	const postern_stage *stage;  // NULL otherwise
	postern_host *host;
	postern_result *r;
	postern_string rest;  // the script, behind the command that runs
	bool ended;
	uint64_t calls;
	postern_buffer saw;
	postern_buffer texts;  // the texts that words stand for
} g;

static struct {
	char text[MAX_KEPT];
	uint32_t len;
} kept[MAX_STAGES];

// ---- Words ----

// cut takes what is before the separator off s; all of s, where there is none.
static postern_string cut(postern_string *s, char separator) {
	for (uint32_t i = 0; i < s->len; i++) {
		if (s->data[i] == separator) {
			postern_string before = postern_string_of(s->data, i);
			*s = postern_string_of(s->data + i + 1, s->len - i - 1);
			return before;
		}
	}
	postern_string all = *s;
	*s = postern_string_of(NULL, 0);
	return all;
}

static int64_t number(postern_string word) {
	bool negative = postern_has_prefix(word, POSTERN("-"));
	uint64_t n = 0;
	for (uint32_t i = negative ? 1 : 0; i < word.len; i++) n = 10 * n + (uint64_t)(word.data[i] - '0');
	return (int64_t)(negative ? 0 - n : n);
}

static uint32_t digit(char c) {
	if (c >= '0' && c <= '9') return (uint32_t)(c - '0');
	return (uint32_t)((c | 0x20) - 'a' + 10);
}

// slot is what is in the slot body or carry.
static postern_string slot(postern_string name) {
	if (!g.event) return postern_string_of(NULL, 0);
	return postern_equal(name, POSTERN("carry")) ? postern_carried(g.event) : postern_body(g.event);
}

// room is n octets until the command has ended.
static uint8_t *room(uint32_t n) {
	if (n > g.texts.cap - g.texts.len) postern_panic(POSTERN("the texts of a command are too long"));
	g.texts.len += n;
	return g.texts.data + g.texts.len - n;
}

// text is what a word stands for.
static postern_string text(postern_string word) {
	if (postern_equal(word, POSTERN("$body"))) return slot(POSTERN("body"));
	if (postern_equal(word, POSTERN("$carry"))) return slot(POSTERN("carry"));
	if (postern_has_prefix(word, POSTERN("@"))) {
		uint32_t n = (uint32_t)number(postern_string_of(word.data + 1, word.len - 1));
		uint8_t *to = room(n);
		for (uint32_t i = 0; i < n; i++) to[i] = 'a';
		return postern_string_of(to, n);
	}
	uint8_t *to = room(word.len);
	uint32_t n = 0;
	for (uint32_t i = 0; i < word.len; i++) {
		if (word.data[i] == '%' && i + 2 < word.len) {
			to[n++] = (uint8_t)(digit(word.data[i + 1]) << 4 | digit(word.data[i + 2]));
			i += 2;
		} else {
			to[n++] = (uint8_t)word.data[i];
		}
	}
	return postern_string_of(to, n);
}

// value is what is in a slot, as a value.
static postern_value value(postern_string name) {
	if (!postern_equal(name, POSTERN("body"))) return g.event ? postern_value_in(g.event, (uint32_t)number(name)) : postern_null();
	return g.event ? postern_value_of(postern_body(g.event)) : g.stage->config;
}

// ---- What is told ----

static void say(postern_string s) { postern_add(&g.saw, s); }
static void say_int(int64_t n) { postern_add_int(&g.saw, n); }

static void say_hex(uint64_t n, int digits) {
	while (digits-- > 0) say(postern_string_of(&"0123456789abcdef"[n >> (4 * digits) & 15], 1));
}

static void say_octets(postern_string s) {
	if (!postern_present(s)) {
		say(POSTERN("-"));
		return;
	}
	if (s.len > 256) {
		uint32_t sum = 0x811c9dc5;
		for (uint32_t i = 0; i < s.len; i++) sum = (sum ^ (uint8_t)s.data[i]) * 0x01000193u;
		say(POSTERN("#"));
		say_int(s.len);
		say(POSTERN(":"));
		say_hex(sum, 8);
		return;
	}
	say(POSTERN("\""));
	for (uint32_t i = 0; i < s.len; i++) {
		uint8_t c = (uint8_t)s.data[i];
		if (c > 0x20 && c < 0x7f && c != '"' && c != '%') {
			say(postern_string_of(&c, 1));
		} else {
			say(POSTERN("%"));
			say(postern_string_of(&"0123456789ABCDEF"[c >> 4], 1));
			say(postern_string_of(&"0123456789ABCDEF"[c & 15], 1));
		}
	}
	say(POSTERN("\""));
}

// say_text is say_octets of something that is always there.
static void say_text(postern_string s) { say_octets(postern_present(s) ? s : POSTERN("")); }

static void say_value(postern_value v) {
	postern_members m = postern_members_of(v);
	double f = postern_float(v);
	uint64_t bits;
	const char *comma = "";
	switch (postern_kind(v)) {
	case POSTERN_NULL:
		say(POSTERN("null"));
		break;
	case POSTERN_BOOL:
		say(postern_bool(v) ? POSTERN("true") : POSTERN("false"));
		break;
	case POSTERN_INT:
		say_int(postern_int(v));
		break;
	case POSTERN_FLOAT:
		__builtin_memcpy(&bits, &f, sizeof bits);
		say(POSTERN("f"));
		say_hex(bits, 16);
		break;
	case POSTERN_STRING:
		say_octets(postern_text(v));
		break;
	default:
		say(m.object ? POSTERN("{") : POSTERN("["));
		for (; postern_next_member(&m); comma = ",") {
			say(postern_cstring(comma));
			if (m.object) {
				say_octets(m.key);
				say(POSTERN(":"));
			}
			say_value(m.value);
		}
		say(m.object ? POSTERN("}") : POSTERN("]"));
	}
}

// encode builds a value anew.
static void encode(postern_buffer *b, postern_value v) {
	postern_members m = postern_members_of(v);
	switch (postern_kind(v)) {
	case POSTERN_NULL:
		postern_write_null(b);
		break;
	case POSTERN_BOOL:
		postern_write_bool(b, postern_bool(v));
		break;
	case POSTERN_INT:
		postern_write_int(b, postern_int(v));
		break;
	case POSTERN_FLOAT:
		postern_write_float(b, postern_float(v));
		break;
	case POSTERN_STRING:
		postern_write_string(b, postern_text(v));
		break;
	case POSTERN_LIST:
		postern_write_list(b, postern_len(v));
		while (postern_next_member(&m)) encode(b, m.value);
		break;
	case POSTERN_OBJECT:
		postern_write_object(b, postern_len(v));
		while (postern_next_member(&m)) {
			postern_write_key(b, m.key);
			encode(b, m.value);
		}
	}
}

// went writes a failure, if there is one.
static bool went(int error) {
	static const postern_string names[] = {
		POSTERN_LITERAL(""), POSTERN_LITERAL("NOT_FOUND"), POSTERN_LITERAL("CONFLICT"), POSTERN_LITERAL("DENIED"),
		POSTERN_LITERAL("INVALID"), POSTERN_LITERAL("TOO_SMALL"), POSTERN_LITERAL("UNAVAILABLE"), POSTERN_LITERAL("INSUFFICIENT"),
		POSTERN_LITERAL("EXPIRED"), POSTERN_LITERAL("LIMIT"), POSTERN_LITERAL("UNKNOWN"),
	};
	if (error) say(names[-error]);
	return error == POSTERN_OK;
}

static void ok(int error) {
	if (went(error)) say(POSTERN("ok"));
}

// ---- Commands that look ----

typedef const postern_string *words;

static void see_event(words w, uint32_t n) {
	bool configured = !g.event;
	(void)w, (void)n;
	say_int(configured ? POSTERN_EVENT_CONFIGURE : g.event->kind);
	say(POSTERN(","));
	say_int(configured ? g.stage->phase : g.event->phase);
	say(POSTERN(","));
	say_int(configured ? g.stage->number : g.event->stage);
	say(POSTERN(","));
	if (configured || postern_end(g.event)) say(POSTERN("E"));
	if (configured) return;
	if (postern_stream(g.event)) say(POSTERN("S"));
	if (postern_truncated(g.event)) say(POSTERN("T"));
	if (postern_gone(g.event)) say(POSTERN("G"));
}

static void see_time(words w, uint32_t n) { (void)w, (void)n, say_int(postern_time(g.event)); }

static void see_exchange(words w, uint32_t n) {
	uint64_t e = postern_exchange(g.event);
	(void)w, (void)n;
	if (e > 9) say_int((int64_t)(e / 10)); // an int64_t holds a tenth of it
	say_int((int64_t)(e % 10));
}

static void see_calls(words w, uint32_t n) { (void)w, (void)n, say_int((int64_t)g.calls); }

static void see_setup(words w, uint32_t n) {
	(void)w, (void)n;
	uint32_t stage = g.event->stage;
	say_octets(postern_string_of(kept[stage].text, kept[stage].len));
}

static void see_slot(words w, uint32_t n) { (void)n, say_octets(slot(w[1])); }

static void see_has(words w, uint32_t n) {
	(void)n;
	bool fixed = postern_equal(w[1], POSTERN("body")) || postern_equal(w[1], POSTERN("carry"));
	say_int(fixed ? postern_present(slot(w[1])) : postern_has(g.event, (uint32_t)number(w[1])));
}

static void see_header(words w, uint32_t n) { (void)n, say_octets(postern_header(g.event, (uint32_t)number(w[1]))); }

static void see_headers(words w, uint32_t n) {
	(void)n;
	const char *comma = "[";
	postern_run run = postern_headers(g.event, (uint32_t)number(w[1]));
	if (!postern_has(g.event, (uint32_t)number(w[1]))) {
		say(POSTERN("-"));
		return;
	}
	for (; postern_next(&run); comma = ",") {
		say(postern_cstring(comma));
		say_octets(run.value);
	}
	say(*comma == '[' ? POSTERN("[]") : POSTERN("]"));
}

static void see_fields(words w, uint32_t n) {
	(void)n;
	const char *comma = "{";
	postern_run run = postern_headers(g.event, (uint32_t)number(w[1]));
	if (!postern_has(g.event, (uint32_t)number(w[1]))) {
		say(POSTERN("-"));
		return;
	}
	for (; postern_next_field(&run); comma = ",") {
		say(postern_cstring(comma));
		say_octets(run.name);
		say(POSTERN(":"));
		say_octets(run.value);
	}
	say(*comma == '{' ? POSTERN("{}") : POSTERN("}"));
}

static void see_value(words w, uint32_t n) { (void)n, say_value(value(w[1])); }
static void see_member(words w, uint32_t n) { (void)n, say_value(postern_member(value(w[1]), text(w[2]))); }
static void see_at(words w, uint32_t n) { (void)n, say_value(postern_at(value(w[1]), (uint32_t)number(w[2]))); }

static void see_encoded(words w, uint32_t n) {
	(void)n;
	uint8_t memory[512];
	postern_buffer b = postern_buffer_of(memory, sizeof memory);
	encode(&b, value(w[1]));
	postern_string all = postern_written(&b);
	for (uint32_t i = 0; i < all.len; i++) say_hex((uint8_t)all.data[i], 2);
}

static void see_answer(words w, uint32_t n) {
	postern_answer a = postern_fetched(g.event, text(w[1]));
	if (!a.found) {
		say(POSTERN("-"));
		return;
	}
	say_int(a.status);
	say(POSTERN(","));
	say_int(a.cached);
	say(POSTERN(","));
	say_octets(a.error);
	say(POSTERN(","));
	say_octets(a.body);
	if (n > 2) {
		say(POSTERN(","));
		say_octets(postern_text(postern_member(a.headers, text(w[2]))));
	}
}

// ---- Commands that decide ----

static void set(words w, uint32_t n) { (void)n, postern_set_header(g.r, text(w[1]), text(w[2])); }
static void add(words w, uint32_t n) { (void)n, postern_add_header(g.r, text(w[1]), text(w[2])); }
static void drop_header(words w, uint32_t n) { (void)n, postern_remove_header(g.r, text(w[1])); }
static void attribute(words w, uint32_t n) { (void)n, postern_set_attribute(g.r, text(w[1]), text(w[2])); }

static void strings(words w, uint32_t n) {
	static postern_string list[MAX_WORDS];
	for (uint32_t i = 2; i < n; i++) list[i - 2] = text(w[i]);
	postern_set_attribute_strings(g.r, text(w[1]), list, n - 2);
}

static void ints(words w, uint32_t n) {
	static int64_t list[MAX_WORDS];
	for (uint32_t i = 2; i < n; i++) list[i - 2] = number(w[i]);
	postern_set_attribute_ints(g.r, text(w[1]), list, n - 2);
}

static void copy(words w, uint32_t n) { (void)n, postern_set_attribute_value(g.r, text(w[1]), value(w[2])); }
static void replace(words w, uint32_t n) { (void)n, postern_replace_body(g.r, text(w[1])); }
static void splice(words w, uint32_t n) { (void)n, postern_splice(g.r, (uint32_t)number(w[1]), (uint32_t)number(w[2]), text(w[3])); }
static void drop(words w, uint32_t n) { (void)w, (void)n, postern_drop_body(g.r); }
static void respond(words w, uint32_t n) { (void)n, postern_respond(g.r, (int)number(w[1]), text(w[2]), text(w[3])); }
static void content(words w, uint32_t n) { (void)n, postern_respond_body(g.r, text(w[1]), text(w[2])); }
static void carry(words w, uint32_t n) { (void)n, postern_carry(g.r, text(w[1])); }
static void meter(words w, uint32_t n) { (void)n, postern_meter(g.r, text(w[1]), number(w[2])); }
static void done(words w, uint32_t n) { (void)w, (void)n, postern_done(g.r); }

static void fetch(words w, uint32_t n) {
	static postern_field fields[64];
	postern_request q = {{0}};
	q.headers = fields;
	for (uint32_t i = 2; i < n; i++) {
		postern_string word = w[i], key = cut(&word, '=');
		if (postern_equal(key, POSTERN("url"))) q.url = text(word);
		else if (postern_equal(key, POSTERN("upstream"))) q.upstream = text(word);
		else if (postern_equal(key, POSTERN("path"))) q.path = text(word);
		else if (postern_equal(key, POSTERN("method"))) q.method = text(word);
		else if (postern_equal(key, POSTERN("body"))) q.body = text(word);
		else if (postern_equal(key, POSTERN("timeout"))) q.timeout = number(word);
		else if (postern_equal(key, POSTERN("cache"))) q.cache = number(word);
		else if (postern_equal(key, POSTERN("max"))) q.max = number(word);
		else if (q.header_count == sizeof fields / sizeof fields[0]) postern_panic(POSTERN("too many fields"));
		else {
			cut(&key, ':');
			fields[q.header_count].name = key;
			fields[q.header_count++].value = text(word);
		}
	}
	postern_fetch(g.r, text(w[1]), &q);
}

static void await(words w, uint32_t n) {
	(void)w, (void)n;
	postern_carry(g.r, g.rest);
	postern_await(g.r);
	g.ended = true;
}

static void fail(words w, uint32_t n) {
	(void)n;
	postern_fail(g.r, text(w[1]));
	g.ended = true;
}

static void trap(words w, uint32_t n) { (void)n, postern_panic(text(w[1])); }

static void spin(words w, uint32_t n) {
	(void)w, (void)n;
	for (volatile uint32_t turns = 0;; turns++) {
	}
}

// ---- Commands that ask the host ----

static void tell_log(words w, uint32_t n) { (void)n, postern_log((int)number(w[1]), text(w[2])); }

static void ask_now(words w, uint32_t n) {
	int64_t now;
	(void)w, (void)n;
	if (went(postern_now(g.host, &now))) say_int(now);
}

static void ask_random(words w, uint32_t n) {
	uint32_t count = (uint32_t)number(w[1]);
	uint8_t *octets = room(count);
	(void)n;
	if (!went(postern_random(g.host, octets, count))) return;
	if (count > 64) say_int(count);
	else for (uint32_t i = 0; i < count; i++) say_hex(octets[i], 2);
}

static void ask_get(words w, uint32_t n) {
	postern_string v;
	(void)n;
	if (went(postern_get(g.host, text(w[1]), &v))) say_octets(v);
}

static void ask_put(words w, uint32_t n) { (void)n, ok(postern_put(g.host, text(w[1]), text(w[2]), number(w[3]))); }

static void ask_cas(words w, uint32_t n) {
	(void)n;
	postern_string old = postern_equal(w[2], POSTERN("-")) ? postern_string_of(NULL, 0) : text(w[2]);
	ok(postern_cas(g.host, text(w[1]), old, text(w[3]), number(w[4])));
}

static void ask_delete(words w, uint32_t n) { (void)n, ok(postern_delete(g.host, text(w[1]))); }

static void ask_count(words w, uint32_t n) {
	int64_t count;
	(void)n;
	if (went(postern_count(g.host, text(w[1]), number(w[2]), number(w[3]), &count))) say_int(count);
}

static void ask_key(words w, uint32_t n) {
	postern_identity who;
	(void)n;
	if (!went(postern_key(g.host, text(w[1]), &who))) return;
	say_text(who.account);
	say(POSTERN(","));
	say_text(who.key);
	say(POSTERN(","));
	say_text(who.name);
	say(POSTERN(","));
	say_value(who.scopes);
}

static void ask_hold(words w, uint32_t n) {
	postern_held held;
	(void)n;
	if (!went(postern_hold(g.host, text(w[1]), text(w[2]), value(w[3]), &held))) return;
	say_text(held.hold);
	say(POSTERN(","));
	say_text(held.amount);
}

static void ask_settle(words w, uint32_t n) {
	postern_receipt receipt;
	(void)n;
	postern_value tags = postern_equal(w[4], POSTERN("-")) ? postern_null() : value(w[4]);
	if (!went(postern_settle(g.host, text(w[1]), value(w[2]), postern_equal(w[3], POSTERN("1")), tags, &receipt))) return;
	say_text(receipt.amount);
	say(POSTERN(","));
	say_text(receipt.balance);
}

static void ask_release(words w, uint32_t n) { (void)n, ok(postern_release(g.host, text(w[1]))); }

static void ask_cache_get(words w, uint32_t n) {
	postern_string v;
	(void)n;
	if (went(postern_cache_get(g.host, text(w[1]), &v))) say_octets(v);
}

static void ask_cache_put(words w, uint32_t n) { (void)n, ok(postern_cache_put(g.host, text(w[1]), text(w[2]), number(w[3]))); }

static void ask_op(words w, uint32_t n) {
	uint32_t capacity = (uint32_t)number(w[2]);
	(void)n;
	say_int(postern_op((uint32_t)number(w[1]), text(w[3]), room(capacity), capacity));
}

// ---- Scripts ----

static void run(words w, uint32_t n);

static void repeat(words w, uint32_t n) {
	uint32_t before = g.texts.len;
	for (int64_t i = number(w[1]); i > 0 && !g.ended; i--) {
		g.texts.len = before;
		run(w + 2, n - 2);
	}
}

// Commands by name: how many words there are at least, the name included; and what begins the token, if there is one.
enum { SILENT, TOKEN, TOKEN_OF_SLOT };
static const struct {
	postern_string name;
	uint32_t least;
	int token;
	void (*run)(words w, uint32_t n);
} commands[] = {
	{POSTERN_LITERAL("event"), 1, TOKEN, see_event},
	{POSTERN_LITERAL("time"), 1, TOKEN, see_time},
	{POSTERN_LITERAL("exchange"), 1, TOKEN, see_exchange},
	{POSTERN_LITERAL("calls"), 1, TOKEN, see_calls},
	{POSTERN_LITERAL("setup"), 1, TOKEN, see_setup},
	{POSTERN_LITERAL("see"), 2, TOKEN_OF_SLOT, see_slot},
	{POSTERN_LITERAL("has"), 2, TOKEN_OF_SLOT, see_has},
	{POSTERN_LITERAL("header"), 2, TOKEN_OF_SLOT, see_header},
	{POSTERN_LITERAL("headers"), 2, TOKEN_OF_SLOT, see_headers},
	{POSTERN_LITERAL("fields"), 2, TOKEN_OF_SLOT, see_fields},
	{POSTERN_LITERAL("value"), 2, TOKEN_OF_SLOT, see_value},
	{POSTERN_LITERAL("member"), 3, TOKEN_OF_SLOT, see_member},
	{POSTERN_LITERAL("at"), 3, TOKEN_OF_SLOT, see_at},
	{POSTERN_LITERAL("encode"), 2, TOKEN_OF_SLOT, see_encoded},
	{POSTERN_LITERAL("answer"), 2, TOKEN_OF_SLOT, see_answer},
	{POSTERN_LITERAL("set"), 3, SILENT, set},
	{POSTERN_LITERAL("add"), 3, SILENT, add},
	{POSTERN_LITERAL("remove"), 2, SILENT, drop_header},
	{POSTERN_LITERAL("attribute"), 3, SILENT, attribute},
	{POSTERN_LITERAL("strings"), 2, SILENT, strings},
	{POSTERN_LITERAL("ints"), 2, SILENT, ints},
	{POSTERN_LITERAL("copy"), 3, SILENT, copy},
	{POSTERN_LITERAL("replace"), 2, SILENT, replace},
	{POSTERN_LITERAL("splice"), 4, SILENT, splice},
	{POSTERN_LITERAL("drop"), 1, SILENT, drop},
	{POSTERN_LITERAL("respond"), 4, SILENT, respond},
	{POSTERN_LITERAL("content"), 3, SILENT, content},
	{POSTERN_LITERAL("carry"), 2, SILENT, carry},
	{POSTERN_LITERAL("meter"), 3, SILENT, meter},
	{POSTERN_LITERAL("done"), 1, SILENT, done},
	{POSTERN_LITERAL("fetch"), 2, SILENT, fetch},
	{POSTERN_LITERAL("await"), 1, SILENT, await},
	{POSTERN_LITERAL("error"), 2, SILENT, fail},
	{POSTERN_LITERAL("trap"), 2, SILENT, trap},
	{POSTERN_LITERAL("spin"), 1, SILENT, spin},
	{POSTERN_LITERAL("repeat"), 3, SILENT, repeat},
	{POSTERN_LITERAL("log"), 3, SILENT, tell_log},
	{POSTERN_LITERAL("now"), 1, TOKEN, ask_now},
	{POSTERN_LITERAL("random"), 2, TOKEN, ask_random},
	{POSTERN_LITERAL("get"), 2, TOKEN, ask_get},
	{POSTERN_LITERAL("put"), 4, TOKEN, ask_put},
	{POSTERN_LITERAL("cas"), 5, TOKEN, ask_cas},
	{POSTERN_LITERAL("delete"), 2, TOKEN, ask_delete},
	{POSTERN_LITERAL("count"), 4, TOKEN, ask_count},
	{POSTERN_LITERAL("key"), 2, TOKEN, ask_key},
	{POSTERN_LITERAL("hold"), 4, TOKEN, ask_hold},
	{POSTERN_LITERAL("settle"), 5, TOKEN, ask_settle},
	{POSTERN_LITERAL("release"), 2, TOKEN, ask_release},
	{POSTERN_LITERAL("cacheget"), 2, TOKEN, ask_cache_get},
	{POSTERN_LITERAL("cacheput"), 4, TOKEN, ask_cache_put},
	{POSTERN_LITERAL("op"), 4, TOKEN, ask_op},
};

// stop fails the event with a text of two parts.
static void stop(postern_string a, postern_string b) {
	uint8_t memory[512];
	postern_buffer why = postern_buffer_of(memory, sizeof memory);
	postern_add(&why, a);
	postern_add(&why, b);
	postern_fail(g.r, why.full ? a : postern_written(&why));
	g.ended = true;
}

// run carries out one command.
static void run(words w, uint32_t n) {
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
		if (n < commands[i].least || !postern_equal(w[0], commands[i].name)) continue;
		if (commands[i].token != SILENT) {
			if (g.saw.len) say(POSTERN(" "));
			say(w[0]);
			if (commands[i].token == TOKEN_OF_SLOT) {
				say(POSTERN("."));
				say(w[1]);
			}
			say(POSTERN("="));
		}
		commands[i].run(w, n);
		return;
	}
	stop(POSTERN("unknown command "), w[0]);
}

static void script(postern_string all) {
	static postern_string list[MAX_WORDS];
	static uint8_t saw[MAX_SAW + 4096], texts[1 << 20];
	g.saw = postern_buffer_of(saw, sizeof saw);
	g.rest = all;
	g.ended = false;
	while (g.rest.len && !g.ended) {
		postern_string command = cut(&g.rest, ';');
		uint32_t n = 0;
		if (postern_has_prefix(g.rest, POSTERN(" "))) cut(&g.rest, ' ');
		while (postern_present(command) && n < MAX_WORDS) list[n++] = cut(&command, ' ');
		g.texts = postern_buffer_of(texts, sizeof texts);
		run(list, n);
		if (!g.ended && (g.saw.full || g.saw.len > MAX_SAW)) stop(POSTERN("saw too much"), POSTERN(""));
	}
}

// ---- The plugin ----

static void configure(postern_stage *s, postern_result *r) {
	if (s->number >= MAX_STAGES) {
		postern_fail(r, POSTERN("more than 16 stages"));
		return;
	}
	g.event = NULL;
	g.stage = s;
	g.host = s->host;
	g.r = r;
	script(postern_text(postern_member(s->config, POSTERN("setup"))));
	kept[s->number].len = g.saw.len < MAX_KEPT ? g.saw.len : MAX_KEPT;
	__builtin_memcpy(kept[s->number].text, g.saw.data, kept[s->number].len);
}

static void on(const postern_event *e, postern_result *r) {
	g.event = e;
	g.stage = NULL;
	g.host = e->host;
	g.r = r;
	g.calls++;
	switch (e->kind) {
	case POSTERN_EVENT_FETCHED:
		script(postern_carried(e));
		break;
	case POSTERN_EVENT_REQUEST:
	case POSTERN_EVENT_REQUEST_BODY:
	case POSTERN_EVENT_RESPONSE:
	case POSTERN_EVENT_RESPONSE_BODY:
	case POSTERN_EVENT_ACCOUNT:
		script(postern_text(postern_value_in(e, SLOT_DO)));
		break;
	default:
		return;
	}
	if (!g.ended && g.saw.len) postern_set_attribute(r, POSTERN("self.saw"), postern_written(&g.saw));
}

POSTERN_PLUGIN(configure, on)
