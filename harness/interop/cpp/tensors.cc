// Tensors as views: elements, shapes, strides, checks with messages.
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/optional.h>

namespace ffi = tvm::ffi;

static void AddOne(ffi::TensorView x, ffi::TensorView y) {
  TVM_FFI_ICHECK_EQ(x.ndim(), 1) << "x must have one dimension";
  DLDataType f32{kDLFloat, 32, 1};
  TVM_FFI_ICHECK(x.dtype() == f32) << "x must hold float32";
  TVM_FFI_ICHECK_EQ(x.size(0), y.size(0)) << "x and y must be equally long";
  for (int64_t i = 0; i < x.size(0); ++i) {
    static_cast<float*>(y.data_ptr())[i] = static_cast<float*>(x.data_ptr())[i] + 1;
  }
}

static ffi::Tensor Kept(ffi::Tensor x) {
  static ffi::Optional<ffi::Tensor> before;
  ffi::Tensor last = before.has_value() ? before.value() : x;
  before = x;
  return last;
}

static int64_t Elements(ffi::TensorView x) { return x.numel(); }

TVM_FFI_DLL_EXPORT_TYPED_FUNC(add_one, AddOne);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(elements, Elements);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(kept, Kept);
