/* matmul(a[n,k], b[k,m], c[n,m]): c = a b, in tiles that stay in the cache. */
#include "kernel.h"

#include <string.h>

enum { TILE = 64 };

static inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }

/* One tile of c; the inner loop runs along rows of b and c, so the compiler can use vectors. */
static void tile(const float* a, const float* b, float* c, int64_t rows, int64_t depth,
                 int64_t columns, int64_t k, int64_t m) {
  int64_t i, j, l;
  for (i = 0; i < rows; ++i) {
    float* restrict out = c + i * m;
    for (l = 0; l < depth; ++l) {
      const float factor = a[i * k + l];
      const float* restrict row = b + l * m;
      for (j = 0; j < columns; ++j) out[j] += factor * row[j];
    }
  }
}

KERNEL(matmul) {
  const DLTensor *a, *b, *c;
  int64_t i, j, l, n, k, m;
  (void)self, (void)result;
  if (expect_count("matmul", num_args, 3)) return -1;
  if (!(a = float_tensor("matmul", args, 0, 2))) return -1;
  if (!(b = float_tensor("matmul", args, 1, 2))) return -1;
  if (!(c = float_tensor("matmul", args, 2, 2))) return -1;
  n = a->shape[0], k = a->shape[1], m = b->shape[1];
  if (expect_length("matmul", "b", b, 0, k)) return -1;
  if (expect_length("matmul", "c", c, 0, n)) return -1;
  if (expect_length("matmul", "c", c, 1, m)) return -1;
  memset(floats(c), 0, (size_t)(n * m) * sizeof(float));
  for (i = 0; i < n; i += TILE) {
    for (l = 0; l < k; l += TILE) {
      for (j = 0; j < m; j += TILE) {
        tile(floats(a) + i * k + l, floats(b) + l * m + j, floats(c) + i * m + j, min(TILE, n - i),
             min(TILE, k - l), min(TILE, m - j), k, m);
      }
    }
  }
  return 0;
}
