/* vector_add(a[n], b[n], c[n]): c = a + b. */
#include "kernel.h"

KERNEL(vector_add) {
  const DLTensor *a, *b, *c;
  int64_t i, n;
  const float *x, *y;
  float* z;
  (void)self, (void)result;
  if (expect_count("vector_add", num_args, 3)) return -1;
  if (!(a = float_tensor("vector_add", args, 0, 1))) return -1;
  if (!(b = float_tensor("vector_add", args, 1, 1))) return -1;
  if (!(c = float_tensor("vector_add", args, 2, 1))) return -1;
  n = a->shape[0];
  if (expect_length("vector_add", "b", b, 0, n)) return -1;
  if (expect_length("vector_add", "c", c, 0, n)) return -1;
  x = floats(a), y = floats(b), z = floats(c);
  for (i = 0; i < n; ++i) z[i] = x[i] + y[i];
  return 0;
}
