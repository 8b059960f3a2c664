/* Byte scans and a small policy, to compare with and without metering. */
#define EXPORT(n) __attribute__((export_name(#n)))
static unsigned char buf[65536];
EXPORT(buffer) unsigned char *buffer(void) { return buf; }
EXPORT(count) int count(int n, int c) { int k = 0; for (int i = 0; i < n; i++) if (buf[i] == c) k++; return k; }
EXPORT(hash) unsigned hash(int n) { unsigned h = 2166136261u; for (int i = 0; i < n; i++) h = (h ^ buf[i]) * 16777619u; return h; }
/* What a redactor looks for: long numbers, at signs, a literal. */
EXPORT(patterns) int patterns(int n) {
  int found = 0, run = 0;
  for (int i = 0; i < n; i++) {
    unsigned char c = buf[i];
    if (c >= '0' && c <= '9') { if (++run == 13) found++; continue; }
    run = 0;
    if (c == '@') { found++; continue; }
    if (c == 's' && i + 3 <= n && buf[i+1] == 'k' && buf[i+2] == '-') found++;
  }
  return found;
}
static int find(const unsigned char *p, int n, const char *w, int m) {
  for (int i = 0; i + m <= n; i++) { int j = 0; while (j < m && p[i+j] == (unsigned char)w[j]) j++; if (j == m) return i; }
  return -1;
}
EXPORT(search) int search(int n) { return find(buf, n, "needle in it", 12); }
__attribute__((noinline)) static int isword(unsigned char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
EXPORT(words) int words(int n) { int k = 0, in = 0; for (int i = 0; i < n; i++) { int w = isword(buf[i]); if (w && !in) k++; in = w; } return k; }
EXPORT(small) int small(int a) { unsigned h = a; for (int i = 0; i < 8; i++) h = h * 31 + buf[i]; return h & 1 ? (int)h : words(16); }
EXPORT(dispatch) int dispatch(int n) { int a = 0; for (int i = 0; i < n; i++) switch (buf[i] & 15) { case 0: a += 3; break; case 1: a ^= 7; break; case 2: a -= i; break; case 3: a = a * 5; break; case 4: a += buf[(i+1)&65535]; break; case 5: a = -a; break; case 6: a >>= 1; break; case 7: a |= 64; break; case 8: a++; break; default: a ^= i; } return a; }
