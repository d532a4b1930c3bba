/* softmax(x[n,m], out[n,m]): each row as probabilities. */
#include "kernel.h"

#include <math.h>

/* The largest value is taken off first, so that no exponential overflows. */
static void row(const float* x, float* out, int64_t length) {
  float largest = -INFINITY, sum = 0;
  int64_t i;
  for (i = 0; i < length; ++i) largest = x[i] > largest ? x[i] : largest;
  for (i = 0; i < length; ++i) {
    out[i] = expf(x[i] - largest);
    sum += out[i];
  }
  for (i = 0; i < length; ++i) out[i] /= sum;
}

KERNEL(softmax) {
  const DLTensor *x, *out;
  int64_t i, n, m;
  (void)self, (void)result;
  if (expect_count("softmax", num_args, 2)) return -1;
  if (!(x = float_tensor("softmax", args, 0, 2))) return -1;
  if (!(out = float_tensor("softmax", args, 1, 2))) return -1;
  n = x->shape[0], m = x->shape[1];
  if (expect_length("softmax", "out", out, 0, n)) return -1;
  if (expect_length("softmax", "out", out, 1, m)) return -1;
  for (i = 0; i < n; ++i) row(floats(x) + i * m, floats(out) + i * m, m);
  return 0;
}
