// A proxy-wasm filter that knows callers by their API key, as Postern's plugin apikey does: the key's SHA-256 is looked up, the key goes no
// further, and the account is told to what comes after. Freestanding; its memory is one static buffer, given anew for each call.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define IMPORT(name) __attribute__((import_module("env"), import_name(#name)))
#define EXPORT(name) __attribute__((export_name(#name)))

IMPORT(proxy_get_header_map_value) u32 proxy_get_header_map_value(u32 map, const char *key, u32 key_size, u8 **value, u32 *size);
IMPORT(proxy_remove_header_map_value) u32 proxy_remove_header_map_value(u32 map, const char *key, u32 size);
IMPORT(proxy_replace_header_map_value) u32 proxy_replace_header_map_value(u32 map, const char *key, u32 key_size, const char *value, u32 size);
IMPORT(proxy_get_buffer_bytes) u32 proxy_get_buffer_bytes(u32 type, u32 start, u32 length, u8 **data, u32 *size);
IMPORT(proxy_send_local_response) u32 proxy_send_local_response(u32 status, const char *details, u32 details_size, const char *body, u32 body_size, const u8 *headers, u32 headers_size, u32 grpc);

static u8 heap[64 << 10];
static u32 used;
static u8 known[32];
static int configured;

EXPORT(proxy_abi_version_0_2_1) void proxy_abi_version_0_2_1(void) {}

EXPORT(proxy_on_memory_allocate) void *proxy_on_memory_allocate(u32 size) {
	size = (size + 15) & ~15u;
	if (size > sizeof heap - used) return 0;
	void *p = heap + used;
	used += size;
	return p;
}

static const u32 K[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74,
	0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d,
	0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e,
	0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5,
	0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static u32 rotate(u32 x, int n) { return x >> n | x << (32 - n); }

static void block(u32 *h, const u8 *p) {
	u32 w[64], s[8];
	for (int i = 0; i < 16; i++) w[i] = (u32)p[4 * i] << 24 | (u32)p[4 * i + 1] << 16 | (u32)p[4 * i + 2] << 8 | p[4 * i + 3];
	for (int i = 16; i < 64; i++)
		w[i] = w[i - 16] + (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] + (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
	for (int i = 0; i < 8; i++) s[i] = h[i];
	for (int i = 0; i < 64; i++) {
		u32 a = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) + K[i] + w[i];
		u32 b = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
		for (int j = 7; j > 0; j--) s[j] = s[j - 1];
		s[4] += a;
		s[0] = a + b;
	}
	for (int i = 0; i < 8; i++) h[i] += s[i];
}

static void sha256(u8 *out, const u8 *p, u32 size) {
	u32 h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
	u8 last[128];
	u32 left = size;
	for (; left >= 64; left -= 64, p += 64) block(h, p);
	u32 end = left < 56 ? 64 : 128;
	for (u32 i = 0; i < end; i++) last[i] = i < left ? p[i] : 0;
	last[left] = 0x80;
	for (int i = 0; i < 8; i++) last[end - 1 - i] = (u8)((u64)size * 8 >> 8 * i);
	block(h, last);
	if (end == 128) block(h, last + 64);
	for (int i = 0; i < 32; i++) out[i] = (u8)(h[i / 4] >> (24 - 8 * (i % 4)));
}

EXPORT(proxy_on_context_create) void proxy_on_context_create(u32 id, u32 parent) { (void)id, (void)parent; }
EXPORT(proxy_on_vm_start) u32 proxy_on_vm_start(u32 id, u32 size) { return (void)id, (void)size, 1; }

EXPORT(proxy_on_configure) u32 proxy_on_configure(u32 id, u32 size) {
	u8 *key;
	u32 got;
	(void)id;
	used = 0;
	if (proxy_get_buffer_bytes(7, 0, size, &key, &got) || !got) return 0; // 7: the plugin's configuration
	sha256(known, key, got);
	configured = 1;
	return 1;
}

static u32 refuse(void) {
	proxy_send_local_response(401, 0, 0, "Who are you?\n", 13, 0, 0, (u32)-1);
	return 1; // pause
}

EXPORT(proxy_on_request_headers) u32 proxy_on_request_headers(u32 id, u32 count, u32 end) {
	u8 *value, hash[32], same = 0;
	u32 size;
	(void)id, (void)count, (void)end;
	used = 0;
	if (!configured || proxy_get_header_map_value(0, "authorization", 13, &value, &size) || size < 8) return refuse();
	sha256(hash, value + 7, size - 7); // behind "Bearer "
	for (int i = 0; i < 32; i++) same |= hash[i] ^ known[i];
	if (same) return refuse();
	proxy_remove_header_map_value(0, "authorization", 13);
	proxy_replace_header_map_value(0, "x-account", 9, "bench", 5);
	return 0; // continue
}

EXPORT(proxy_on_done) u32 proxy_on_done(u32 id) { return (void)id, 1; }
EXPORT(proxy_on_delete) void proxy_on_delete(u32 id) { (void)id; }
