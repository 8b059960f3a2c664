// postern.h: Postern policy plugins in C and C++. One header, no library, no allocation for an event, no libc needed.
//
// A plugin is two functions and, in one of its files, POSTERN_PLUGIN. This one greets the upstream:
//
//	#include "postern.h"
//
//	static void configure(postern_stage *s, postern_result *r) {
//		postern_string *greeting = (postern_string *)postern_alloc(s->host, sizeof *greeting);
//		if (!greeting) {
//			postern_fail(r, POSTERN("out of memory"));
//			return;
//		}
//		*greeting = postern_keep(s->host, postern_text(postern_member(s->config, POSTERN("greeting"))));
//		s->data = greeting;
//	}
//
//	static void on(const postern_event *e, postern_result *r) {
//		postern_set_header(r, POSTERN("x-greeting"), *(postern_string *)e->data);
//	}
//
//	POSTERN_PLUGIN(configure, on)
//
// The gateway makes several instances of a module, each with memory of its own, and gives any of them any event: what must
// outlive an event travels by postern_carry or in the host's state. Calls on one instance never overlap. What is handed out
// points into the frame and is valid until the function returns; postern_keep copies what has to last. The normative text
// behind this file is ABI.md; what a plugin sees and may do is declared in plugin.hcl.
//
// It compiles as C99 and as C++11, with clang for WebAssembly and with any compiler of a little-endian machine for tests:
// there, the test defines postern_import_log and postern_import_op itself.

#ifndef POSTERN_H
#define POSTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "postern.h reads frames in place and needs a little-endian machine"
#endif

#ifndef __wasm__
#include <stdlib.h>
#endif

// What is seldom needed stays out of line, so that modules are small.
#define POSTERN__COLD static __attribute__((noinline, cold, unused))

#ifdef __cplusplus
extern "C" {
#endif

// Sizes of the ABI, in octets.
#define POSTERN_MIN_FRAME 65536u     // the frame buffer to begin with
#define POSTERN_MAX_FRAME 16777215u  // a frame, and a result
#define POSTERN_MAX_ANSWER 65536u    // an answer of a host operation
#define POSTERN_MAX_INPUT 196608u    // a host operation's input
#define POSTERN_MAX_DETAIL 1024u     // the text of an answer or an error
#define POSTERN_MAX_DEPTH 32         // nesting of a value

// What happened. An event not listed here is to be answered by doing nothing.
enum {
	POSTERN_EVENT_CONFIGURE = 0,      // never reaches the plugin's on
	POSTERN_EVENT_REQUEST = 1,        // a request has come to the stage: every phase before response
	POSTERN_EVENT_REQUEST_BODY = 2,   // a piece of the request's body (body modes stream and events)
	POSTERN_EVENT_RESPONSE = 3,       // the response's head has come
	POSTERN_EVENT_RESPONSE_BODY = 4,  // the response's body, by body mode
	POSTERN_EVENT_FETCHED = 5,        // the fetches asked for are done: postern_fetched
	POSTERN_EVENT_ACCOUNT = 6,        // the exchange is over. Always, also when the client has gone
};

// The fixed points on a request's way.
enum {
	POSTERN_PHASE_AUTHENTICATE = 0,  // who calls
	POSTERN_PHASE_AUTHORIZE = 1,     // may this caller do this
	POSTERN_PHASE_ADMIT = 2,         // may it be done now
	POSTERN_PHASE_ROUTE = 3,         // which upstream or model target
	POSTERN_PHASE_REQUEST = 4,       // change what goes out
	POSTERN_PHASE_RESPONSE = 5,      // change what comes back
	POSTERN_PHASE_ACCOUNT = 6,       // settle
};

// What a host operation returns: POSTERN_OK, or why it was not done.
enum {
	POSTERN_OK = 0,
	POSTERN_NOT_FOUND = -1,     // no such key, account or hold
	POSTERN_CONFLICT = -2,      // postern_cas: the stored value differs
	POSTERN_DENIED = -3,        // the operator did not grant what this needs
	POSTERN_INVALID = -4,       // malformed or too large
	POSTERN_TOO_SMALL = -5,     // the answer is larger than there is memory for
	POSTERN_UNAVAILABLE = -6,   // the host can not do it now
	POSTERN_INSUFFICIENT = -7,  // postern_hold: the balance does not cover it
	POSTERN_EXPIRED = -8,       // postern_key: revoked or expired, or the account is closed
	POSTERN_LIMIT = -9,         // too many operations in one event, or the plugin's state is full
	POSTERN_UNKNOWN = -10,      // the host is too old for this
};

// Kinds of values.
enum {
	POSTERN_NULL = 0,
	POSTERN_BOOL = 1,
	POSTERN_INT = 2,
	POSTERN_FLOAT = 3,
	POSTERN_STRING = 4,
	POSTERN_LIST = 5,
	POSTERN_OBJECT = 6,
};

// Levels of the log.
enum {
	POSTERN_LOG_DEBUG = 0,
	POSTERN_LOG_INFO = 1,
	POSTERN_LOG_WARN = 2,
	POSTERN_LOG_ERROR = 3,
};

// The codes of the operations of a result and of the host, as in ABI.md.
enum {
	POSTERN__HEADER_SET = 1,
	POSTERN__HEADER_ADD = 2,
	POSTERN__HEADER_REMOVE = 3,
	POSTERN__ATTRIBUTE = 4,
	POSTERN__BODY_REPLACE = 5,
	POSTERN__BODY_SPLICE = 6,
	POSTERN__BODY_DROP = 7,
	POSTERN__RESPOND = 8,
	POSTERN__RESPOND_BODY = 9,
	POSTERN__CARRY = 10,
	POSTERN__FETCH = 11,
	POSTERN__METER = 12,
};
enum {
	POSTERN__TIME = 1,
	POSTERN__RANDOM = 2,
	POSTERN__GET = 3,
	POSTERN__PUT = 4,
	POSTERN__CAS = 5,
	POSTERN__DELETE = 6,
	POSTERN__COUNT = 7,
	POSTERN__KEY = 8,
	POSTERN__HOLD = 9,
	POSTERN__SETTLE = 10,
	POSTERN__RELEASE = 11,
	POSTERN__CACHE_GET = 12,
	POSTERN__CACHE_PUT = 13,
};

// The actions of a result; the functions that write one set them.
enum {
	POSTERN_ACTION_CONTINUE = 0,
	POSTERN_ACTION_RESPOND = 1,
	POSTERN_ACTION_AWAIT = 2,
	POSTERN_ACTION_DONE = 4,
	POSTERN_ACTION_ERROR = 5,
};

// ---- Strings ----

// A string is octets, not ended by a zero. Where data is NULL there is none: a header that was not sent, a body the event
// does not have. Empty and absent differ.
typedef struct postern_string {
	const char *data;
	uint32_t len;
} postern_string;

// postern_string_of is the string of len octets at data.
static inline postern_string postern_string_of(const void *data, size_t len) {
	postern_string s;
	s.data = (const char *)data;
	s.len = (uint32_t)len;
	return s;
}

// POSTERN("text") is the string of a literal.
#define POSTERN(literal) postern_string_of("" literal, sizeof(literal) - 1)

// POSTERN_LITERAL("text") is the same as an initializer, for constants and tables:
//
//	static const postern_string name = POSTERN_LITERAL("x-name");
#define POSTERN_LITERAL(literal) {"" literal, sizeof(literal) - 1}

// postern_cstring is the string of text ended by a zero; of NULL, none.
static inline postern_string postern_cstring(const char *text) {
	size_t n = 0;
	while (text && text[n]) n++;
	return postern_string_of(text, n);
}

// postern_present tells empty from absent.
static inline bool postern_present(postern_string s) { return s.data != NULL; }

// postern_equal compares octets; absent and empty are equal.
static inline bool postern_equal(postern_string a, postern_string b) {
	if (a.len != b.len) return false;
	for (uint32_t i = 0; i < a.len; i++) {
		if (a.data[i] != b.data[i]) return false;
	}
	return true;
}

// postern_has_prefix reports whether s begins with prefix.
static inline bool postern_has_prefix(postern_string s, postern_string prefix) {
	return s.len >= prefix.len && postern_equal(postern_string_of(s.data, prefix.len), prefix);
}

// ---- The host's two functions ----

#ifdef __wasm__
__attribute__((import_module("postern"), import_name("log"))) void postern_import_log(int32_t level, const void *message, uint32_t length);
__attribute__((import_module("postern"), import_name("op"))) int64_t postern_import_op(uint32_t code, const void *in, uint32_t in_length, void *out, uint32_t out_capacity);
#define POSTERN_EXPORT(name) __attribute__((export_name(name)))
#else
void postern_import_log(int32_t level, const void *message, uint32_t length);
int64_t postern_import_op(uint32_t code, const void *in, uint32_t in_length, void *out, uint32_t out_capacity);
#define POSTERN_EXPORT(name)
#endif

// postern_log writes a line to the gateway's log under the plugin's name. Lines are cut at 1,024 octets, and an event may
// write 8,192. Write no personal data and no secrets.
static inline void postern_log(int level, postern_string message) { postern_import_log(level, message.data, message.len); }

static inline void postern_debug(postern_string message) { postern_log(POSTERN_LOG_DEBUG, message); }
static inline void postern_info(postern_string message) { postern_log(POSTERN_LOG_INFO, message); }
static inline void postern_warn(postern_string message) { postern_log(POSTERN_LOG_WARN, message); }
static inline void postern_error(postern_string message) { postern_log(POSTERN_LOG_ERROR, message); }

// postern_panic logs why the plugin can not go on, and traps: the event fails, on_error decides, and the gateway makes another
// instance. It is for what can not happen; what a caller or an operator can bring about is postern_respond or postern_fail.
static inline void postern_panic(postern_string why) {
	postern_error(why);
	__builtin_trap();
}

// ---- Memory ----

// postern__pages is n octets of new memory, a multiple of 64 KiB, or NULL at the operator's limits.memory. It is taken from
// the end of the memory, so it stands beside any malloc.
static inline uint8_t *postern__pages(uint32_t n) {
#ifdef __wasm__
	size_t before = __builtin_wasm_memory_grow(0, n / 65536u);
	return before == (size_t)-1 ? NULL : (uint8_t *)(before * 65536u);
#else
	return (uint8_t *)malloc(n);
#endif
}

// A buffer is memory that is written from the front. One made by postern_buffer_of is the caller's and never grows; the
// SDK's own grow up to max.
typedef struct postern_buffer {
	uint8_t *data;
	uint32_t len, cap, max;
	bool full;  // something did not fit. From then on nothing more is written, so it is enough to look once, at the end
} postern_buffer;

// postern_buffer_of makes a buffer of cap octets of the caller's memory, to put a key or a value together in.
static inline postern_buffer postern_buffer_of(void *memory, uint32_t cap) {
	postern_buffer b;
	b.data = (uint8_t *)memory;
	b.len = 0;
	b.cap = b.max = cap;
	b.full = false;
	return b;
}

// postern_written is what has been written to a buffer: none when it did not all fit.
static inline postern_string postern_written(const postern_buffer *b) {
	return b->full ? postern_string_of(NULL, 0) : postern_string_of(b->data, b->len);
}

// postern__grow makes room for more octets behind what is there. Where the buffer is the end of the memory it grows in place.
POSTERN__COLD bool postern__grow(postern_buffer *b, uint32_t more) {
	uint64_t want = (uint64_t)b->len + more;
	if (b->full || want > b->max) {
		b->full = true;
		return false;
	}
	if (want < 2 * (uint64_t)b->cap) want = 2 * (uint64_t)b->cap;
	if (want > b->max) want = b->max;
	uint32_t cap = (uint32_t)((want + 65535u) & ~(uint64_t)65535u);
#ifdef __wasm__
	if ((uintptr_t)b->data + b->cap == (uintptr_t)__builtin_wasm_memory_size(0) * 65536u && b->cap % 65536u == 0) {
		b->full = !postern__pages(cap - b->cap);
		if (!b->full) b->cap = cap;
		return !b->full;
	}
#endif
	uint8_t *data = postern__pages(cap);
	if (!data) {
		b->full = true;
		return false;
	}
	if (b->len) __builtin_memcpy(data, b->data, b->len);
	b->data = data;
	b->cap = cap;
	return true;
}

static inline bool postern__room(postern_buffer *b, uint32_t more) {
	return (!b->full && b->cap - b->len >= more) || postern__grow(b, more);
}

// postern__copy copies octets that do not overlap. Names and values are mostly short: copying those as one or two words, which
// may overlap, takes a fraction of what the engine's own operation does.
static inline void postern__copy(uint8_t *to, const void *octets, uint32_t n) {
	const uint8_t *from = (const uint8_t *)octets;
	uint64_t long1, long2;
	uint32_t word1, word2;
	uint16_t half;
	if (n > 16) {
		__builtin_memcpy(to, from, n);
	} else if (n >= 8) {
		__builtin_memcpy(&long1, from, 8);
		__builtin_memcpy(&long2, from + n - 8, 8);
		__builtin_memcpy(to, &long1, 8);
		__builtin_memcpy(to + n - 8, &long2, 8);
	} else if (n >= 4) {
		__builtin_memcpy(&word1, from, 4);
		__builtin_memcpy(&word2, from + n - 4, 4);
		__builtin_memcpy(to, &word1, 4);
		__builtin_memcpy(to + n - 4, &word2, 4);
	} else if (n >= 2) {
		uint8_t last = from[n - 1];
		__builtin_memcpy(&half, from, 2);
		__builtin_memcpy(to, &half, 2);
		to[n - 1] = last;
	} else if (n == 1) {
		to[0] = from[0];
	}
}

// postern_add appends a string's octets.
static inline void postern_add(postern_buffer *b, postern_string s) {
	if (s.len && postern__room(b, s.len)) {
		postern__copy(b->data + b->len, s.data, s.len);
		b->len += s.len;
	}
}

// postern_add_int appends a number in decimal.
static inline void postern_add_int(postern_buffer *b, int64_t n) {
	char digits[20];
	uint32_t at = sizeof digits;
	uint64_t rest = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;
	do {
		digits[--at] = (char)('0' + rest % 10);
		rest /= 10;
	} while (rest);
	if (n < 0) digits[--at] = '-';
	postern_add(b, postern_string_of(digits + at, sizeof digits - at));
}

static inline void postern__put8(postern_buffer *b, uint8_t v) {
	if (postern__room(b, 1)) b->data[b->len++] = v;
}

static inline void postern__put16(postern_buffer *b, uint16_t v) { postern_add(b, postern_string_of(&v, 2)); }
static inline void postern__put32(postern_buffer *b, uint32_t v) { postern_add(b, postern_string_of(&v, 4)); }
static inline void postern__put64(postern_buffer *b, uint64_t v) { postern_add(b, postern_string_of(&v, 8)); }

static inline uint16_t postern__u16(const void *p) {
	uint16_t v;
	__builtin_memcpy(&v, p, 2);
	return v;
}

static inline uint32_t postern__u32(const void *p) {
	uint32_t v;
	__builtin_memcpy(&v, p, 4);
	return v;
}

static inline uint64_t postern__u64(const void *p) {
	uint64_t v;
	__builtin_memcpy(&v, p, 8);
	return v;
}

// ---- Values ----

// A value is a configuration, an attribute, an argument, or an answer of the host, read in place. What is missing,
// malformed or of another kind reads as null, 0, absent or empty: reading never fails.
typedef struct postern_value {
	const uint8_t *raw;  // NULL: null
	uint32_t len;
} postern_value;

// postern__size measures the value at the start of n octets; 0 when they do not begin with a whole one.
static __attribute__((unused)) uint32_t postern__size(const uint8_t *b, uint32_t n, int depth) {
	if (n == 0 || depth > POSTERN_MAX_DEPTH) return 0;
	uint32_t at = 5, count;
	switch (b[0]) {
	case POSTERN_NULL:
		return 1;
	case POSTERN_BOOL:
		return n >= 2 ? 2 : 0;
	case POSTERN_INT:
	case POSTERN_FLOAT:
		return n >= 9 ? 9 : 0;
	case POSTERN_STRING:
		return n >= 5 && n - 5 >= postern__u32(b + 1) ? 5 + postern__u32(b + 1) : 0;
	case POSTERN_LIST:
	case POSTERN_OBJECT:
		if (n < 5) return 0;
		for (count = postern__u32(b + 1); count > 0; count--) {
			if (b[0] == POSTERN_OBJECT) {
				if (n - at < 4 || n - at - 4 < postern__u32(b + at)) return 0;
				at += 4 + postern__u32(b + at);
			}
			uint32_t size = postern__size(b + at, n - at, depth + 1);
			if (size == 0) return 0;
			at += size;
		}
		return at;
	}
	return 0;
}

// postern_value_of is the value that octets begin with, checked as a whole; null when they are malformed. Events and hosts
// hand out checked values: this is for octets that were carried or stored.
static inline postern_value postern_value_of(postern_string octets) {
	postern_value v;
	v.len = octets.data ? postern__size((const uint8_t *)octets.data, octets.len, 0) : 0;
	v.raw = v.len ? (const uint8_t *)octets.data : NULL;
	return v;
}

// postern_null is the value null.
static inline postern_value postern_null(void) { return postern_value_of(postern_string_of(NULL, 0)); }

// postern_raw is a value as it is encoded.
static inline postern_string postern_raw(postern_value v) { return postern_string_of(v.raw, v.len); }

// postern_kind is one of POSTERN_NULL to POSTERN_OBJECT.
static inline int postern_kind(postern_value v) { return v.raw ? (int)v.raw[0] : (int)POSTERN_NULL; }

// postern_bool is the value of a bool, else false.
static inline bool postern_bool(postern_value v) { return postern_kind(v) == POSTERN_BOOL && v.raw[1] != 0; }

// postern_float is the value of a float or an int, else 0.
static inline double postern_float(postern_value v) {
	double f = 0;
	if (postern_kind(v) == POSTERN_FLOAT) __builtin_memcpy(&f, v.raw + 1, 8);
	if (postern_kind(v) == POSTERN_INT) f = (double)(int64_t)postern__u64(v.raw + 1);
	return f;
}

// postern_int is the value of an int, or of a float cut to one (the nearest there is when it is too large), else 0.
static inline int64_t postern_int(postern_value v) {
	if (postern_kind(v) == POSTERN_INT) return (int64_t)postern__u64(v.raw + 1);
	double f = postern_float(v);
	if (f >= 9223372036854775808.0) return INT64_MAX;
	if (f < -9223372036854775808.0) return INT64_MIN;
	return f == f ? (int64_t)f : 0;
}

// postern_text is a string's octets, else absent.
static inline postern_string postern_text(postern_value v) {
	return postern_kind(v) == POSTERN_STRING ? postern_string_of(v.raw + 5, v.len - 5) : postern_string_of(NULL, 0);
}

// postern_len is the number of members of a list or an object, else 0.
static inline uint32_t postern_len(postern_value v) { return postern_kind(v) >= POSTERN_LIST ? postern__u32(v.raw + 1) : 0; }

// Members walks a list or an object:
//
//	postern_members m = postern_members_of(v);
//	while (postern_next_member(&m)) ... m.key, m.value ...
typedef struct postern_members {
	postern_string key;   // absent in a list
	postern_value value;
	const uint8_t *rest;
	uint32_t left, len;
	bool object;
} postern_members;

static inline postern_members postern_members_of(postern_value v) {
	postern_members m;
	m.key = postern_string_of(NULL, 0);
	m.value = postern_null();
	m.left = postern_len(v);
	m.rest = m.left ? v.raw + 5 : NULL;
	m.len = m.left ? v.len - 5 : 0;
	m.object = postern_kind(v) == POSTERN_OBJECT;
	return m;
}

// postern_next_member goes to the next member; false when there is none.
static inline bool postern_next_member(postern_members *m) {
	if (m->left == 0) return false;
	m->left--;
	if (m->object) {
		m->key = postern_string_of(m->rest + 4, postern__u32(m->rest));
		m->rest += 4 + m->key.len;
		m->len -= 4 + m->key.len;
	}
	m->value.raw = m->rest;
	m->value.len = postern__size(m->rest, m->len, 0);
	m->rest += m->value.len;
	m->len -= m->value.len;
	return true;
}

// postern_member is an object's member called key, or null.
static inline postern_value postern_member(postern_value v, postern_string key) {
	postern_members m = postern_members_of(v);
	while (m.object && postern_next_member(&m)) {
		if (postern_equal(m.key, key)) return m.value;
	}
	return postern_null();
}

// postern_at is a list's member i, counted from 0, or null.
static inline postern_value postern_at(postern_value v, uint32_t i) {
	postern_members m = postern_members_of(v);
	while (!m.object && postern_next_member(&m)) {
		if (i-- == 0) return m.value;
	}
	return postern_null();
}

// postern_write_null and its like append one encoded value to a buffer. After postern_write_list come count values, after
// postern_write_object count times postern_write_key and a value.
static inline void postern_write_null(postern_buffer *b) { postern__put8(b, POSTERN_NULL); }

static inline void postern_write_bool(postern_buffer *b, bool v) {
	postern__put8(b, POSTERN_BOOL);
	postern__put8(b, v ? 1 : 0);
}

static inline void postern_write_int(postern_buffer *b, int64_t v) {
	postern__put8(b, POSTERN_INT);
	postern__put64(b, (uint64_t)v);
}

static inline void postern_write_float(postern_buffer *b, double v) {
	postern__put8(b, POSTERN_FLOAT);
	postern_add(b, postern_string_of(&v, 8));
}

static inline void postern_write_key(postern_buffer *b, postern_string key) {
	postern__put32(b, key.len);
	postern_add(b, key);
}

static inline void postern_write_string(postern_buffer *b, postern_string v) {
	postern__put8(b, POSTERN_STRING);
	postern_write_key(b, v);
}

static inline void postern_write_list(postern_buffer *b, uint32_t count) {
	postern__put8(b, POSTERN_LIST);
	postern__put32(b, count);
}

static inline void postern_write_object(postern_buffer *b, uint32_t count) {
	postern__put8(b, POSTERN_OBJECT);
	postern__put32(b, count);
}

static inline void postern_write_value(postern_buffer *b, postern_value v) {
	if (v.raw) postern_add(b, postern_raw(v));
	else postern_write_null(b);
}

// ---- Stages and events ----

// The host is what a plugin may ask while it runs; see "Host operations" below.
typedef struct postern_host {
	postern_buffer in, out;
	uint8_t *heap;       // what postern_alloc hands out next
	uint32_t heap_left;
	void **data;         // of each stage
	uint32_t stages;     // how many there is room for
} postern_host;

// A stage is one use of the plugin in a policy. The plugin's configure is called once for each, in the order of their
// numbers, before any event.
typedef struct postern_stage {
	uint32_t number;
	int phase;             // POSTERN_PHASE_...
	postern_value config;  // an object: the config block's load-time arguments and blocks, defaults filled in
	postern_host *host;    // logs, memory and random octets; state, accounts and ledger answer POSTERN_UNAVAILABLE here
	void *data;            // the plugin's own: what is put here is in the data of the stage's events
} postern_stage;

// An event is one thing that happened to an exchange.
typedef struct postern_event {
	int kind;   // POSTERN_EVENT_...
	int phase;  // POSTERN_PHASE_...
	uint32_t stage;
	uint8_t flags;
	void *data;  // the stage's
	postern_host *host;
	const uint8_t *frame;
	uint32_t len, slots;
} postern_event;

// postern_alloc is size octets, aligned to 16 and zero, for as long as the instance lives; NULL when the operator's
// limits.memory is reached. There is no way to give them back: it is for configure.
static inline void *postern_alloc(postern_host *h, size_t size) {
	if (size > POSTERN_MAX_FRAME) return NULL;
	uint32_t n = ((uint32_t)size + 15u) & ~15u;
	if (n > h->heap_left) {
		uint32_t chunk = (n + 65535u) & ~65535u;
		uint8_t *pages = postern__pages(chunk);
		if (!pages) return NULL;
		h->heap = pages;
		h->heap_left = chunk;
	}
	uint8_t *p = h->heap;
	h->heap += n;
	h->heap_left -= n;
	for (uint32_t i = 0; i < n; i++) p[i] = 0;
	return p;
}

// postern_keep copies a string to memory of postern_alloc; absent when there is none, or when s is.
static inline postern_string postern_keep(postern_host *h, postern_string s) {
	char *copy = s.data ? (char *)postern_alloc(h, s.len) : NULL;
	if (copy && s.len) __builtin_memcpy(copy, s.data, s.len);
	return postern_string_of(copy, copy ? s.len : 0);
}

// postern_time is the wall clock when the event was made, in nanoseconds since 1970.
static inline int64_t postern_time(const postern_event *e) { return (int64_t)postern__u64(e->frame + 16); }

// postern_exchange is a number that is the same in all events of an exchange.
static inline uint64_t postern_exchange(const postern_event *e) { return postern__u64(e->frame + 24); }

// postern_end reports that the body is the end of the message's body.
static inline bool postern_end(const postern_event *e) { return (e->flags & 1) != 0; }

// postern_stream reports that the body is server-sent events; with body mode events, the body is whole events.
static inline bool postern_stream(const postern_event *e) { return (e->flags & 2) != 0; }

// postern_truncated reports that the body was longer than buffer(max) allows: it is the beginning, and can not be changed.
static inline bool postern_truncated(const postern_event *e) { return (e->flags & 4) != 0; }

// postern_gone reports that the client has gone.
static inline bool postern_gone(const postern_event *e) { return (e->flags & 8) != 0; }

static inline postern_string postern__slot(const postern_event *e, uint32_t slot) {
	if (slot >= e->slots) return postern_string_of(NULL, 0);
	uint32_t offset = postern__u32(e->frame + 32 + 8 * (size_t)slot), len = postern__u32(e->frame + 36 + 8 * (size_t)slot);
	if (offset == 0 || offset > e->len || len > e->len - offset) return postern_string_of(NULL, 0);
	return postern_string_of(e->frame + offset, len);
}

// postern_carried is what this plugin carried from an earlier event of the exchange in the same policy, or absent.
static inline postern_string postern_carried(const postern_event *e) { return postern__slot(e, 0); }

// postern_body is the body, a piece of it, or server-sent events; absent when the event has none.
static inline postern_string postern_body(const postern_event *e) { return postern__slot(e, 1); }

// Slots are numbered from 0 in the order plugin.hcl declares them for the event's hook: first sees.headers, then
// sees.attributes, then the per-request arguments of the manifest and of the hook.
static inline postern_string postern__declared(const postern_event *e, uint32_t slot) {
	return slot < e->slots ? postern__slot(e, slot + 2) : postern_string_of(NULL, 0);
}

// postern_has reports whether a slot is there: a header that was not sent, or an attribute not yet known, is absent.
static inline bool postern_has(const postern_event *e, uint32_t slot) { return postern_present(postern__declared(e, slot)); }

// Run walks the values of a header, or all fields of a hook that sees headers = ["*"]:
//
//	postern_run run = postern_headers(e, SLOT);
//	while (postern_next(&run)) ... run.value ...
//	while (postern_next_field(&run)) ... run.name, run.value ...
typedef struct postern_run {
	postern_string name, value, rest;
} postern_run;

// postern_headers begins a walk through the header in a slot.
static inline postern_run postern_headers(const postern_event *e, uint32_t slot) {
	postern_run run;
	run.name = run.value = postern_string_of(NULL, 0);
	run.rest = postern__declared(e, slot);
	return run;
}

static inline bool postern__take(postern_string *from, postern_string *to) {
	if (from->len < 4 || from->len - 4 < postern__u32(from->data)) {
		*from = postern_string_of(NULL, 0);
		return false;
	}
	*to = postern_string_of(from->data + 4, postern__u32(from->data));
	*from = postern_string_of(to->data + to->len, from->len - 4 - to->len);
	return true;
}

// postern_next goes to the next value of a header; false when there is none.
static inline bool postern_next(postern_run *run) { return postern__take(&run->rest, &run->value); }

// postern_next_field goes to the next field; false when there is none.
static inline bool postern_next_field(postern_run *run) {
	return postern__take(&run->rest, &run->name) && postern__take(&run->rest, &run->value);
}

// postern_header is the first value of the header in a slot, or absent.
static inline postern_string postern_header(const postern_event *e, uint32_t slot) {
	postern_run run = postern_headers(e, slot);
	return postern_next(&run) ? run.value : postern_string_of(NULL, 0);
}

// postern_value_in is the attribute or argument in a slot; absent reads as null.
static inline postern_value postern_value_in(const postern_event *e, uint32_t slot) { return postern_value_of(postern__declared(e, slot)); }

// An answer is what came of a fetch.
typedef struct postern_answer {
	bool found;             // there was a fetch of that name
	int status;             // of the HTTP response, 200 to 599; 0 when there was none
	postern_string error;   // why there was none: denied, invalid, timeout, unreachable, too_large or busy; empty when there was one
	bool cached;            // the answer had been given to the same request before
	postern_value headers;  // an object of strings by lower-case name. Several fields of a name are one, joined by ", "
	postern_string body;    // as it came: nothing is decompressed
} postern_answer;

// postern_answers is an object of all answers of an event POSTERN_EVENT_FETCHED, in the order they were asked for; null with
// any other event. postern_answer_of takes a member of it apart.
static inline postern_value postern_answers(const postern_event *e) {
	return e->kind == POSTERN_EVENT_FETCHED ? postern_value_of(postern_body(e)) : postern_null();
}

static inline postern_answer postern_answer_of(postern_value v) {
	postern_answer a;
	a.found = postern_kind(v) == POSTERN_OBJECT;
	a.status = (int)postern_int(postern_member(v, POSTERN("status")));
	a.error = postern_text(postern_member(v, POSTERN("error")));
	a.cached = postern_bool(postern_member(v, POSTERN("cached")));
	a.headers = postern_member(v, POSTERN("headers"));
	a.body = postern_text(postern_member(v, POSTERN("body")));
	return a;
}

// postern_fetched is the answer to the fetch of that name.
static inline postern_answer postern_fetched(const postern_event *e, postern_string name) {
	return postern_answer_of(postern_member(postern_answers(e), name));
}

// postern_ok reports that an answer came and its status is 2xx.
static inline bool postern_ok(postern_answer a) { return a.error.len == 0 && a.status >= 200 && a.status <= 299; }

// ---- Results ----

// A result is what the plugin decides. As it is given to the plugin it means: go on, change nothing. Operations take effect
// together, after on has returned; the host refuses the whole result when one of them is not allowed (ABI.md says what is
// allowed where). A result that does not fit into the memory the operator allows, or is longer than 16,777,215 octets, becomes
// the plugin's failure.
typedef struct postern_result {
	int action;
	postern_buffer ops;
	uint32_t open;  // where the last operation begins, whose length is written when it is whole
	uint32_t text;  // where the length of the string it ends with is, or 0
} postern_result;

// postern__close writes the lengths of the last operation.
static inline void postern__close(postern_result *r) {
	if (r->ops.full || r->ops.len == 0) return;
	uint8_t *op = r->ops.data + r->open;
	uint32_t value = r->ops.len - r->open - 8 - postern__u16(op + 2);
	__builtin_memcpy(op + 4, &value, 4);
	if (r->text) {
		uint32_t text = r->ops.len - r->text - 4;
		__builtin_memcpy(r->ops.data + r->text, &text, 4);
	}
}

static inline void postern__start(postern_result *r) {
	r->action = POSTERN_ACTION_CONTINUE;
	r->ops.len = r->open = r->text = 0;
	r->ops.full = false;
}

static inline void postern__op(postern_result *r, uint8_t code, postern_string key);

// postern_fail says that the plugin failed: nothing of the result is applied, the text (at most 1,024 octets) is logged, and
// the stage's on_error decides: deny, unless the operator wrote allow. In configure it refuses the configuration, and the
// operator is shown the text with the stage's place in the files. What is written to the result afterwards is dropped. A
// refusal meant for the caller is postern_respond, not a failure.
POSTERN__COLD void postern_fail(postern_result *r, postern_string why) {
	if (r->action == POSTERN_ACTION_ERROR) return;
	postern__start(r);
	postern__op(r, POSTERN__RESPOND, POSTERN("plugin_error"));
	postern__put16(&r->ops, 500);
	if (why.len > POSTERN_MAX_DETAIL) why.len = POSTERN_MAX_DETAIL;
	postern_add(&r->ops, why);
	postern__close(r);
	r->action = POSTERN_ACTION_ERROR;
	r->ops.full = true;
}

static inline void postern__op(postern_result *r, uint8_t code, postern_string key) {
	postern__close(r);
	if (key.len > 0xffff) {
		postern_fail(r, POSTERN("a name in the result is longer than 65535 octets"));
		return;
	}
	if (!postern__room(&r->ops, 8 + key.len)) return;
	uint8_t *op = r->ops.data + r->ops.len;
	op[0] = code;
	op[1] = 0;
	op[2] = (uint8_t)key.len;
	op[3] = (uint8_t)(key.len >> 8);
	postern__copy(op + 8, key.data, key.len);
	r->open = r->ops.len;
	r->text = 0;
	r->ops.len += 8 + key.len;
}

static inline void postern__act(postern_result *r, int action) {
	if (r->action != POSTERN_ACTION_ERROR) r->action = action;
}

// postern_append adds octets to the value written last: to a header's value, an attribute that is a string, the text or the
// body of an answer, what is carried, what replaces a body.
//
//	postern_set_header(r, POSTERN("x-greeting"), greeting);
//	postern_append(r, POSTERN(", "));
//	postern_append(r, name);
static inline void postern_append(postern_result *r, postern_string more) {
	if (r->ops.len) postern_add(&r->ops, more);
}

// postern_append_int adds a number in decimal to the value written last.
static inline void postern_append_int(postern_result *r, int64_t n) {
	if (r->ops.len) postern_add_int(&r->ops, n);
}

// postern_set_header sets a header field: the request's before the response phase, then the response's, and the answer's
// together with postern_respond. The name is lower case.
static inline void postern_set_header(postern_result *r, postern_string name, postern_string value) {
	postern__op(r, POSTERN__HEADER_SET, name);
	postern_add(&r->ops, value);
}

// postern_add_header adds a field and keeps those of the same name.
static inline void postern_add_header(postern_result *r, postern_string name, postern_string value) {
	postern__op(r, POSTERN__HEADER_ADD, name);
	postern_add(&r->ops, value);
}

// postern_remove_header removes every field of that name.
static inline void postern_remove_header(postern_result *r, postern_string name) { postern__op(r, POSTERN__HEADER_REMOVE, name); }

// postern_set_attribute sets an attribute to a string: one of the host's where the phase allows it (identity.account,
// identity.key and identity.name in authenticate), or one of the plugin's own, written "self.name", which expressions read as
// attribute["<plugin>.name"].
static inline void postern_set_attribute(postern_result *r, postern_string name, postern_string value) {
	postern__op(r, POSTERN__ATTRIBUTE, name);
	uint32_t text = r->ops.len + 1;
	postern_write_string(&r->ops, value);
	if (!r->ops.full) r->text = text;
}

// postern_set_attribute_value sets an attribute to a value that was read: identity.scopes from what postern_key gave, for
// example; or to one written to a buffer.
static inline void postern_set_attribute_value(postern_result *r, postern_string name, postern_value value) {
	postern__op(r, POSTERN__ATTRIBUTE, name);
	postern_write_value(&r->ops, value);
}

// postern_set_attribute_ints sets an attribute to a list of whole numbers, as targets in the route phase: the order in which
// the targets are to be tried, as indexes.
static inline void postern_set_attribute_ints(postern_result *r, postern_string name, const int64_t *values, uint32_t count) {
	postern__op(r, POSTERN__ATTRIBUTE, name);
	postern_write_list(&r->ops, count);
	for (uint32_t i = 0; i < count; i++) postern_write_int(&r->ops, values[i]);
}

// postern_set_attribute_strings sets an attribute to a list of strings, as identity.scopes in authenticate.
static inline void postern_set_attribute_strings(postern_result *r, postern_string name, const postern_string *values, uint32_t count) {
	postern__op(r, POSTERN__ATTRIBUTE, name);
	postern_write_list(&r->ops, count);
	for (uint32_t i = 0; i < count; i++) postern_write_string(&r->ops, values[i]);
}

// postern_replace_body puts body in the place of the octets postern_body gave.
static inline void postern_replace_body(postern_result *r, postern_string body) {
	postern__op(r, POSTERN__BODY_REPLACE, postern_string_of(NULL, 0));
	postern_add(&r->ops, body);
}

// postern_splice cuts octets out of what postern_body gave and puts others there. Splices ascend and do not overlap.
static inline void postern_splice(postern_result *r, uint32_t offset, uint32_t cut, postern_string put) {
	postern__op(r, POSTERN__BODY_SPLICE, postern_string_of(NULL, 0));
	postern__put32(&r->ops, offset);
	postern__put32(&r->ops, cut);
	postern_add(&r->ops, put);
}

// postern_drop_body drops the octets postern_body gave.
static inline void postern_drop_body(postern_result *r) { postern__op(r, POSTERN__BODY_DROP, postern_string_of(NULL, 0)); }

// postern_respond answers the client with a problem document: a status from 400 to 599, a stable code (a-z, 0-9 and _, at
// most 64 octets) and a text for the caller, which may be empty (at most 1,024 octets). In authenticate it means: not this
// identity; other authenticate stages may still accept the caller. Followed by postern_respond_body the status may be 200
// to 599.
static inline void postern_respond(postern_result *r, int status, postern_string code, postern_string detail) {
	postern__op(r, POSTERN__RESPOND, code);
	postern__put16(&r->ops, (uint16_t)status);
	postern_add(&r->ops, detail);
	postern__act(r, POSTERN_ACTION_RESPOND);
}

// postern_respond_body gives the answer of postern_respond a body of its own instead of a problem document.
static inline void postern_respond_body(postern_result *r, postern_string content_type, postern_string body) {
	postern__op(r, POSTERN__RESPOND_BODY, content_type);
	postern_add(&r->ops, body);
}

// postern_carry keeps octets (at most 64 KiB) for the next events of the exchange at any stage of this plugin in the same
// policy; they replace what was carried before.
static inline void postern_carry(postern_result *r, postern_string octets) {
	postern__op(r, POSTERN__CARRY, postern_string_of(NULL, 0));
	postern_add(&r->ops, octets);
}

// postern_meter adds n, at least 0, to the plugin's counter of that name (a-z, 0-9 and _), which the gateway shows in its
// metrics.
static inline void postern_meter(postern_result *r, postern_string name, int64_t n) {
	postern__op(r, POSTERN__METER, name);
	postern__put64(&r->ops, (uint64_t)n);
}

// postern_done asks for no more events at this stage in this exchange; the operations of this result apply.
static inline void postern_done(postern_result *r) { postern__act(r, POSTERN_ACTION_DONE); }

// A field of a fetch.
typedef struct postern_field {
	postern_string name, value;
} postern_field;

// A request is what postern_fetch asks for. What is left out (all zero) has its default.
typedef struct postern_request {
	postern_string url;            // absolute; its origin is one the operator granted. Or else:
	postern_string upstream;       // an upstream's name, which the operator granted,
	postern_string path;           // with the path there, and the query
	postern_string method;         // default GET
	const postern_field *headers;  // names in lower case, each once
	uint32_t header_count;
	postern_string body;           // none with GET and HEAD
	int64_t timeout;               // nanoseconds. Default, and most: what the operator allows
	int64_t cache;                 // nanoseconds: how old an answer may be that was given to the same request. 0: it is made anew
	int64_t max;                   // octets of the answer's body, at most 1 MiB; default 64 KiB
} postern_request;

// postern_fetch asks for a request, to be made when the result awaits (grant fetch); up to eight with different names (a-z, 0-9
// and _, at most 64 octets), which are made at the same time. Their answers come with POSTERN_EVENT_FETCHED, see
// postern_fetched. Besides fetches, a result that awaits may carry and meter, and nothing else.
static inline void postern_fetch(postern_result *r, postern_string name, const postern_request *q) {
	postern_buffer *b = &r->ops;
	const postern_string *texts[] = {&q->url, &q->upstream, &q->path, &q->method, &q->body};
	const postern_string names[] = {POSTERN("url"), POSTERN("upstream"), POSTERN("path"), POSTERN("method"), POSTERN("body")};
	const int64_t ints[] = {q->timeout, q->cache, q->max};
	const postern_string int_names[] = {POSTERN("timeout"), POSTERN("cache"), POSTERN("max")};
	uint32_t count = q->header_count ? 1 : 0;
	for (int i = 0; i < 5; i++) count += texts[i]->len ? 1 : 0;
	for (int i = 0; i < 3; i++) count += ints[i] ? 1 : 0;
	postern__op(r, POSTERN__FETCH, name);
	postern_write_object(b, count);
	for (int i = 0; i < 5; i++) {
		if (!texts[i]->len) continue;
		postern_write_key(b, names[i]);
		postern_write_string(b, *texts[i]);
	}
	for (int i = 0; i < 3; i++) {
		if (!ints[i]) continue;
		postern_write_key(b, int_names[i]);
		postern_write_int(b, ints[i]);
	}
	if (q->header_count) {
		postern_write_key(b, POSTERN("headers"));
		postern_write_object(b, q->header_count);
		for (uint32_t i = 0; i < q->header_count; i++) {
			postern_write_key(b, q->headers[i].name);
			postern_write_string(b, q->headers[i].value);
		}
	}
}

// postern_await asks to be called again, with POSTERN_EVENT_FETCHED, when every fetch of this result is done. No instance is
// held until then: what the plugin has to remember is carried.
static inline void postern_await(postern_result *r) { postern__act(r, POSTERN_ACTION_AWAIT); }

// ---- Host operations ----
//
// What a function hands out is valid until the next host operation. One that needs a grant says which. The operator bounds
// how many operations an event may make, 1,024 if nothing is written. Times are in nanoseconds; a ttl of 0 keeps for good.

// postern_op asks for an operation as ABI.md describes it, octet by octet: for one that this SDK has no function for yet. It
// returns the number of octets written to out, or a negative error.
static inline int64_t postern_op(uint32_t code, postern_string in, void *out, uint32_t capacity) {
	return postern_import_op(code, in.data, in.len, out, capacity);
}

// postern_error_text says an error in words.
static inline postern_string postern_error_text(int error) {
	switch (error) {
	case POSTERN_OK:
		return POSTERN("no error");
	case POSTERN_NOT_FOUND:
		return POSTERN("not found");
	case POSTERN_CONFLICT:
		return POSTERN("the stored value differs");
	case POSTERN_DENIED:
		return POSTERN("not granted");
	case POSTERN_INVALID:
		return POSTERN("malformed or too large");
	case POSTERN_TOO_SMALL:
		return POSTERN("answer too large");
	case POSTERN_UNAVAILABLE:
		return POSTERN("not available now");
	case POSTERN_INSUFFICIENT:
		return POSTERN("insufficient balance");
	case POSTERN_EXPIRED:
		return POSTERN("revoked or expired");
	case POSTERN_LIMIT:
		return POSTERN("too many calls, or no room left");
	}
	return POSTERN("not known to the host");
}

static inline int postern__call(postern_host *h, uint32_t code, postern_string in) {
	h->out.len = 0;
	h->out.full = false;
	int64_t n = postern_op(code, in, h->out.data, h->out.cap);
	if (n == POSTERN_TOO_SMALL && h->out.cap < POSTERN_MAX_ANSWER && postern__room(&h->out, POSTERN_MAX_ANSWER)) {
		n = postern_op(code, in, h->out.data, h->out.cap);
	}
	if (n < 0) return (int)n;
	if (n > h->out.cap) return POSTERN_TOO_SMALL;
	h->out.len = (uint32_t)n;
	return POSTERN_OK;
}

// postern__ask does an operation with what was written to h->in.
static inline int postern__ask(postern_host *h, uint32_t code) {
	return h->in.full ? POSTERN_INVALID : postern__call(h, code, postern_written(&h->in));
}

static inline postern_buffer *postern__input(postern_host *h) {
	h->in.len = 0;
	h->in.full = false;
	return &h->in;
}

static inline int postern__number(postern_host *h, int error, int64_t *n) {
	if (error) return error;
	if (h->out.len < 8) return POSTERN_INVALID;
	*n = (int64_t)postern__u64(h->out.data);
	return POSTERN_OK;
}

// postern_now is the wall clock in nanoseconds since 1970. postern_time(e) is nearer and mostly enough.
static inline int postern_now(postern_host *h, int64_t *time) {
	return postern__number(h, postern__call(h, POSTERN__TIME, postern_string_of(NULL, 0)), time);
}

// postern_random fills n octets, at most 4,096, with some fit for keys.
static inline int postern_random(postern_host *h, void *octets, uint32_t n) {
	(void)h;
	int64_t written = postern_op(POSTERN__RANDOM, postern_string_of(NULL, 0), octets, n);
	return written < 0 ? (int)written : POSTERN_OK;
}

// postern_get reads from the plugin's state on this node (grant state). POSTERN_NOT_FOUND when the key is not there or its
// time is over.
static inline int postern_get(postern_host *h, postern_string key, postern_string *value) {
	int error = postern__call(h, POSTERN__GET, key);
	*value = error ? postern_string_of(NULL, 0) : postern_written(&h->out);
	return error;
}

// postern_put writes to the plugin's state (grant state).
static inline int postern_put(postern_host *h, postern_string key, postern_string value, int64_t ttl) {
	postern_buffer *in = postern__input(h);
	postern__put64(in, (uint64_t)ttl);
	postern_write_key(in, key);
	postern_add(in, value);
	return postern__ask(h, POSTERN__PUT);
}

// postern_cas writes value only when what is stored is old, absent meaning nothing; else POSTERN_CONFLICT (grant state).
static inline int postern_cas(postern_host *h, postern_string key, postern_string old, postern_string value, int64_t ttl) {
	postern_buffer *in = postern__input(h);
	postern__put64(in, (uint64_t)ttl);
	postern__put32(in, key.len);
	postern__put32(in, postern_present(old) ? old.len : 0xffffffffu);
	postern_add(in, key);
	if (postern_present(old)) postern_add(in, old);
	postern_add(in, value);
	return postern__ask(h, POSTERN__CAS);
}

// postern_delete removes a key from the plugin's state; removing what is not there is no error (grant state).
static inline int postern_delete(postern_host *h, postern_string key) { return postern__call(h, POSTERN__DELETE, key); }

// postern_count adds delta to a counter and gives its new value. A counter begins at 0; ttl counts from its first use (grant
// state).
static inline int postern_count(postern_host *h, postern_string key, int64_t delta, int64_t ttl, int64_t *count) {
	postern_buffer *in = postern__input(h);
	postern__put64(in, (uint64_t)delta);
	postern__put64(in, (uint64_t)ttl);
	postern_add(in, key);
	return postern__number(h, postern__ask(h, POSTERN__COUNT), count);
}

// An identity is who an API key belongs to.
typedef struct postern_identity {
	postern_string account;
	postern_string key;    // the key's id, which is no secret
	postern_string name;
	postern_value scopes;  // a list of strings
} postern_identity;

// postern_key finds who a presented API key belongs to (grant accounts). POSTERN_NOT_FOUND: no such key; POSTERN_EXPIRED:
// revoked, expired, or its account is closed.
static inline int postern_key(postern_host *h, postern_string presented, postern_identity *who) {
	int error = postern__call(h, POSTERN__KEY, presented);
	postern_value v = error ? postern_null() : postern_value_of(postern_written(&h->out));
	who->account = postern_text(postern_member(v, POSTERN("account")));
	who->key = postern_text(postern_member(v, POSTERN("key")));
	who->name = postern_text(postern_member(v, POSTERN("name")));
	who->scopes = postern_member(v, POSTERN("scopes"));
	return error;
}

// What postern_hold reserved.
typedef struct postern_held {
	postern_string hold;    // its id
	postern_string amount;  // a decimal in the ledger's currency
} postern_held;

// postern_hold reserves the most the call can cost (grant ledger): max is the attribute usage.max. POSTERN_INSUFFICIENT: the
// balance does not cover it; POSTERN_NOT_FOUND: no such account.
static inline int postern_hold(postern_host *h, postern_string account, postern_string model, postern_value max, postern_held *held) {
	postern_buffer *in = postern__input(h);
	postern_write_object(in, 3);
	postern_write_key(in, POSTERN("account"));
	postern_write_string(in, account);
	postern_write_key(in, POSTERN("model"));
	postern_write_string(in, model);
	postern_write_key(in, POSTERN("max"));
	postern_write_value(in, max);
	int error = postern__ask(h, POSTERN__HOLD);
	postern_value v = error ? postern_null() : postern_value_of(postern_written(&h->out));
	held->hold = postern_text(postern_member(v, POSTERN("hold")));
	held->amount = postern_text(postern_member(v, POSTERN("amount")));
	return error;
}

// A receipt is what a call cost.
typedef struct postern_receipt {
	postern_string amount;   // a decimal in the ledger's currency
	postern_string balance;  // what is left and not held
} postern_receipt;

// postern_settle charges what a call used against its hold, once, and at most what was held (grant ledger). Usage is the
// attribute response.usage; tags an object of strings that is written on the ledger entry, or null. POSTERN_NOT_FOUND: no
// such hold.
static inline int postern_settle(postern_host *h, postern_string hold, postern_value usage, bool estimated, postern_value tags, postern_receipt *receipt) {
	postern_buffer *in = postern__input(h);
	postern_write_object(in, 4);
	postern_write_key(in, POSTERN("hold"));
	postern_write_string(in, hold);
	postern_write_key(in, POSTERN("usage"));
	postern_write_value(in, usage);
	postern_write_key(in, POSTERN("estimated"));
	postern_write_bool(in, estimated);
	postern_write_key(in, POSTERN("tags"));
	postern_write_value(in, tags);
	int error = postern__ask(h, POSTERN__SETTLE);
	postern_value v = error ? postern_null() : postern_value_of(postern_written(&h->out));
	receipt->amount = postern_text(postern_member(v, POSTERN("amount")));
	receipt->balance = postern_text(postern_member(v, POSTERN("balance")));
	return error;
}

// postern_release gives back what a hold reserved, for a call that was never served (grant ledger). POSTERN_NOT_FOUND: no
// such hold.
static inline int postern_release(postern_host *h, postern_string hold) { return postern__call(h, POSTERN__RELEASE, hold); }

// postern_cache_get reads from the caller's account's part of the plugin's cache (grant cache). POSTERN_NOT_FOUND when the key
// is not there or its time is over; POSTERN_UNAVAILABLE when the caller has no account.
static inline int postern_cache_get(postern_host *h, postern_string key, postern_string *value) {
	int error = postern__call(h, POSTERN__CACHE_GET, key);
	*value = error ? postern_string_of(NULL, 0) : postern_written(&h->out);
	return error;
}

// postern_cache_put writes to the caller's account's part of the plugin's cache (grant cache), where the least used makes room.
// The ttl is more than 0. POSTERN_UNAVAILABLE when the caller has no account; POSTERN_LIMIT when the value is larger than the
// whole cache.
static inline int postern_cache_put(postern_host *h, postern_string key, postern_string value, int64_t ttl) {
	postern_buffer *in = postern__input(h);
	postern__put64(in, (uint64_t)ttl);
	postern_write_key(in, key);
	postern_add(in, value);
	return postern__ask(h, POSTERN__CACHE_PUT);
}

// ---- The module ----

// An instance runs the plugin behind the ABI: it takes frames and gives results. A module has one, made by POSTERN_PLUGIN.
typedef struct postern_instance {
	postern_buffer frame;
	postern_host host;
	postern_event event;
	postern_result result;
} postern_instance;

typedef void postern_configure_function(postern_stage *s, postern_result *r);
typedef void postern_on_function(const postern_event *e, postern_result *r);

// postern__read takes apart the frame in the first n octets of the buffer; false when it is not whole.
static inline bool postern__read(postern_instance *i, uint32_t n) {
	postern_event *e = &i->event;
	const uint8_t *frame = i->frame.data;
	postern__start(&i->result);
	if (n < 32 || n > i->frame.cap || postern__u32(frame) != n || postern__u32(frame + 12) > (n - 32) / 8) {
		postern_fail(&i->result, POSTERN("malformed frame"));
		return false;
	}
	e->frame = frame;
	e->len = n;
	e->kind = postern__u16(frame + 4);
	e->phase = frame[6];
	e->flags = frame[7];
	e->stage = postern__u32(frame + 8);
	e->slots = postern__u32(frame + 12);
	e->host = &i->host;
	e->data = e->stage < i->host.stages ? i->host.data[e->stage] : NULL;
	return true;
}

static inline void postern__finish(postern_instance *i) {
	postern_result *r = &i->result;
	if (r->ops.full) postern_fail(r, POSTERN("the result does not fit: it is longer than 16777215 octets, or than limits.memory allows"));
	else postern__close(r);
}

// postern__remember puts a stage's data where its events find it.
static inline bool postern__remember(postern_host *h, uint32_t stage, void *data) {
	if (stage >= h->stages) {
		uint32_t room = stage < 8 ? 16 : 2 * stage;
		void **table = stage < POSTERN_MAX_FRAME / 16 ? (void **)postern_alloc(h, room * sizeof *table) : NULL;
		if (!table) return false;
		for (uint32_t i = 0; i < h->stages; i++) table[i] = h->data[i];
		h->data = table;
		h->stages = room;
	}
	h->data[stage] = data;
	return true;
}

// postern_run_configure hands the first n octets of the frame buffer to configure; the answer is in i->result.
static inline void postern_run_configure(postern_instance *i, uint32_t n, postern_configure_function *configure) {
	if (!postern__read(i, n)) return;
	postern_stage s;
	s.number = i->event.stage;
	s.phase = i->event.phase;
	s.config = postern_value_of(postern_body(&i->event));
	s.host = &i->host;
	s.data = NULL;
	configure(&s, &i->result);
	if (i->result.action != POSTERN_ACTION_ERROR && !postern__remember(&i->host, s.number, s.data)) {
		postern_fail(&i->result, POSTERN("no memory for another stage: limits.memory is too low"));
	}
	postern__finish(i);
}

// postern_run_on hands the first n octets of the frame buffer to on; the answer is in i->result.
static inline void postern_run_on(postern_instance *i, uint32_t n, postern_on_function *on) {
	if (!postern__read(i, n)) return;
	on(&i->event, &i->result);
	postern__finish(i);
}

// postern_run_grow makes the frame buffer hold at least n octets, where it can; what was in it is lost.
static inline void postern_run_grow(postern_instance *i, uint32_t n) {
	if (n > i->frame.cap && n <= POSTERN_MAX_FRAME) postern__room(&i->frame, n);
	i->frame.full = false;
}

#define POSTERN__RESULTS 4096
#define POSTERN__INPUT 2048
#define POSTERN__OUTPUT 4096
#define POSTERN__HEAP 4096

// POSTERN_PLUGIN makes a module of two functions:
//
//	void configure(postern_stage *s, postern_result *r);   called once for each stage, before any event
//	void on(const postern_event *e, postern_result *r);    called for each event
//
// It stands once in a plugin, in one of its files.
#define POSTERN_PLUGIN(configure, on)                                                                                         \
	static uint8_t postern__frames[POSTERN_MIN_FRAME];                                                                        \
	static uint8_t postern__results[POSTERN__RESULTS], postern__in[POSTERN__INPUT], postern__out[POSTERN__OUTPUT];            \
	static uint64_t postern__heap[POSTERN__HEAP / 8] __attribute__((aligned(16)));                                            \
	static postern_instance postern__instance = {                                                                             \
		{postern__frames, 0, POSTERN_MIN_FRAME, POSTERN_MAX_FRAME, false},                                                    \
		{                                                                                                                     \
			{postern__in, 0, POSTERN__INPUT, POSTERN_MAX_INPUT, false},                                                       \
			{postern__out, 0, POSTERN__OUTPUT, POSTERN_MAX_ANSWER, false},                                                    \
			(uint8_t *)postern__heap, POSTERN__HEAP, NULL, 0,                                                                 \
		},                                                                                                                    \
		{0, 0, 0, 0, NULL, NULL, NULL, 0, 0},                                                                                 \
		{0, {postern__results, 0, POSTERN__RESULTS, POSTERN_MAX_FRAME, false}, 0, 0},                                         \
	};                                                                                                                        \
	POSTERN__MODULE(configure, on)

#ifdef __wasm__
#define POSTERN__MODULE(configure, on)                                                                                        \
	static uint64_t postern__buffer(void) {                                                                                   \
		return (uint64_t)(uintptr_t)postern__instance.frame.data << 32 | postern__instance.frame.cap;                         \
	}                                                                                                                         \
	static uint64_t postern__answer(void) {                                                                                   \
		const postern_result *r = &postern__instance.result;                                                                  \
		return (uint64_t)r->action << 56 | (uint64_t)r->ops.len << 32 | (uintptr_t)r->ops.data;                               \
	}                                                                                                                         \
	POSTERN__LINKAGE POSTERN_EXPORT("postern_abi_v1") uint64_t postern_abi_v1(void) { return postern__buffer(); }             \
	POSTERN__LINKAGE POSTERN_EXPORT("postern_grow") uint64_t postern_grow(uint32_t capacity) {                                \
		postern_run_grow(&postern__instance, capacity);                                                                       \
		return postern__buffer();                                                                                             \
	}                                                                                                                         \
	POSTERN__LINKAGE POSTERN_EXPORT("postern_configure") uint64_t postern_configure(uint32_t length) {                        \
		postern_run_configure(&postern__instance, length, configure);                                                         \
		return postern__answer();                                                                                             \
	}                                                                                                                         \
	POSTERN__LINKAGE POSTERN_EXPORT("postern_on") uint64_t postern_on(uint32_t event, uint32_t length) {                      \
		(void)event;                                                                                                          \
		postern_run_on(&postern__instance, length, on);                                                                       \
		return postern__answer();                                                                                             \
	}                                                                                                                         \
	POSTERN__FREESTANDING
#else
// Outside a module, a test writes a frame to the buffer of the instance, runs it, and reads the result of the instance.
postern_instance *postern_native(void);
void postern_native_configure(uint32_t length);
void postern_native_on(uint32_t length);
#define POSTERN__MODULE(configure, on)                                                                                        \
	postern_instance *postern_native(void) { return &postern__instance; }                                                     \
	void postern_native_configure(uint32_t length) { postern_run_configure(&postern__instance, length, configure); }          \
	void postern_native_on(uint32_t length) { postern_run_on(&postern__instance, length, on); }
#endif

#ifdef __cplusplus
#define POSTERN__LINKAGE extern "C"
#else
#define POSTERN__LINKAGE
#endif

// What a C library brings, where there is none: constructors are run once, and the compiler's own calls have something to
// call.
#if defined(__wasm__) && !defined(__wasi__)
#ifdef __wasm_bulk_memory__
#define POSTERN__COPY __builtin_memcpy(to, from, n);
#define POSTERN__MOVE __builtin_memmove(to, from, n);
#define POSTERN__FILL __builtin_memset(to, c, n);
#else
#define POSTERN__COPY for (size_t i = 0; i < n; i++) ((char *)to)[i] = ((const char *)from)[i];
#define POSTERN__MOVE                                                                                                         \
	if ((uintptr_t)to <= (uintptr_t)from) {                                                                                   \
		for (size_t i = 0; i < n; i++) ((char *)to)[i] = ((const char *)from)[i];                                             \
	} else {                                                                                                                  \
		for (size_t i = n; i > 0; i--) ((char *)to)[i - 1] = ((const char *)from)[i - 1];                                     \
	}
#define POSTERN__FILL for (size_t i = 0; i < n; i++) ((char *)to)[i] = (char)c;
#endif
#define POSTERN__FREESTANDING                                                                                                 \
	POSTERN__LINKAGE void __wasm_call_ctors(void);                                                                            \
	POSTERN__LINKAGE POSTERN_EXPORT("_initialize") void postern__initialize(void) { __wasm_call_ctors(); }                    \
	POSTERN__LINKAGE __attribute__((weak, no_builtin)) void *memcpy(void *to, const void *from, size_t n) {                   \
		POSTERN__COPY return to;                                                                                              \
	}                                                                                                                         \
	POSTERN__LINKAGE __attribute__((weak, no_builtin)) void *memmove(void *to, const void *from, size_t n) {                  \
		POSTERN__MOVE return to;                                                                                              \
	}                                                                                                                         \
	POSTERN__LINKAGE __attribute__((weak, no_builtin)) void *memset(void *to, int c, size_t n) {                              \
		POSTERN__FILL return to;                                                                                              \
	}                                                                                                                         \
	POSTERN__LINKAGE __attribute__((weak, no_builtin)) int memcmp(const void *a, const void *b, size_t n) {                   \
		for (size_t i = 0; i < n; i++) {                                                                                      \
			int d = ((const unsigned char *)a)[i] - ((const unsigned char *)b)[i];                                            \
			if (d) return d;                                                                                                  \
		}                                                                                                                     \
		return 0;                                                                                                             \
	}
#else
#define POSTERN__FREESTANDING
#endif

#ifdef __cplusplus
}
#endif

#endif
