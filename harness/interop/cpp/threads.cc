// Threads of its own that call back and throw.
#include <tvm/ffi/error.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/string.h>

#include <atomic>
#include <thread>
#include <vector>

namespace ffi = tvm::ffi;

static int64_t SumOver(ffi::Function f, int64_t count) {
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < count; ++i) {
    threads.emplace_back([&sum, &f, i] { sum += f(i).cast<int64_t>(); });
  }
  for (auto& thread : threads) thread.join();
  return sum;
}

static int64_t Failures(ffi::Function f, int64_t count) {
  std::atomic<int64_t> failures{0};
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < count; ++i) {
    threads.emplace_back([&failures, &f, i] {
      try {
        f(i);
      } catch (const ffi::Error& error) {
        if (error.message() == "number " + std::to_string(i)) ++failures;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  return failures;
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(sum_over, SumOver);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(failures, Failures);
