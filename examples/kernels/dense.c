/* dense(x[n,k], weights[k,m], bias[m], out[n,m], relu): one layer of a network,
 * out = x weights + bias, and nothing below zero if relu is not 0. */
#include "kernel.h"

/* One row of the output. */
static void row(const float* x, const float* weights, const float* bias, float* out, int64_t k,
                int64_t m, int relu) {
  int64_t j, l;
  for (j = 0; j < m; ++j) out[j] = bias[j];
  for (l = 0; l < k; ++l) {
    for (j = 0; j < m; ++j) out[j] += x[l] * weights[l * m + j];
  }
  for (j = 0; relu && j < m; ++j) out[j] = out[j] > 0 ? out[j] : 0;
}

KERNEL(dense) {
  const DLTensor *x, *weights, *bias, *out;
  int64_t i, n, k, m, relu;
  (void)self, (void)result;
  if (expect_count("dense", num_args, 5)) return -1;
  if (!(x = float_tensor("dense", args, 0, 2))) return -1;
  if (!(weights = float_tensor("dense", args, 1, 2))) return -1;
  if (!(bias = float_tensor("dense", args, 2, 1))) return -1;
  if (!(out = float_tensor("dense", args, 3, 2))) return -1;
  if (expect_int("dense", args, 4, &relu)) return -1;
  n = x->shape[0], k = x->shape[1], m = weights->shape[1];
  if (expect_length("dense", "weights", weights, 0, k)) return -1;
  if (expect_length("dense", "bias", bias, 0, m)) return -1;
  if (expect_length("dense", "out", out, 0, n)) return -1;
  if (expect_length("dense", "out", out, 1, m)) return -1;
  for (i = 0; i < n; ++i) {
    row(floats(x) + i * k, floats(weights), floats(bias), floats(out) + i * m, k, m, relu != 0);
  }
  return 0;
}
