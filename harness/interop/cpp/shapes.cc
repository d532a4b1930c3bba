// Shapes as objects.
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

namespace ffi = tvm::ffi;

static ffi::Shape Transposed(ffi::TensorView x) { return ffi::Shape({x.size(1), x.size(0)}); }
static int64_t Product(ffi::Shape shape) { return shape.Product(); }
static int64_t ProductOf(ffi::TensorView x) {
  return ffi::Shape(x.shape().begin(), x.shape().end()).Product();
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(transposed, Transposed);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(product, Product);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(product_of, ProductOf);
