/* A guest that fails in several places, to see which lines its errors name. */

static int table[16];

static int divide(int a, int b) {
  return a / b; /* divided by zero */
}

__attribute__((export_name("early"))) int early(int a) {
  return divide(7, a);
}

__attribute__((noinline)) static int sum(const int *from, int n) {
  int s = 0;
  for (int i = 0; i < n; i++)
    s += from[i]; /* out of bounds */
  return s;
}

__attribute__((export_name("late"))) int late(int n) {
  int s = 0;
  for (int i = 0; i < 3; i++) {
    table[i] = i;
    s += table[i];
  }
  return s + sum(table, n);
}
