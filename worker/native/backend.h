// A backend is a table of ops. Missing hardware is another table, never an `if` at the caller.
// worker/program/ops.ts says what the ops mean and what shapes their buffers have.
#pragma once

#include <cstdint>

#include "attrs.generated.h"

// Kernel files are compiled for several instruction sets. They may share no function, or the linker
// could keep a copy that this machine cannot run; so every function here is inlined.
#define SCMOE_ALWAYS_INLINE inline __attribute__((always_inline))

namespace scmoe {

// The type of a buffer's elements.
enum class DType : uint8_t { kF32, kI32, kBF16 };

// One op with its buffers bound. Pointers stay valid as long as the program is loaded. An optional
// buffer that is left out makes the list shorter; the structs of ops.generated.h find each by name.
struct OpCall {
  const void* const* in;
  const int64_t* in_elements;
  const DType* in_types;
  int num_in;
  void* const* out;
  const int64_t* out_elements;
  const DType* out_types;
  int num_out;
  const Attrs* attrs;
};

template <class T>
SCMOE_ALWAYS_INLINE const T* input(const OpCall& call, int i) {
  return static_cast<const T*>(call.in[i]);
}
template <class T>
SCMOE_ALWAYS_INLINE T* output(const OpCall& call, int i) {
  return static_cast<T*>(call.out[i]);
}
// Null if the buffer is left out.
template <class T>
SCMOE_ALWAYS_INLINE const T* input_if(const OpCall& call, int i) {
  return i < call.num_in ? input<T>(call, i) : nullptr;
}
template <class T>
SCMOE_ALWAYS_INLINE T* output_if(const OpCall& call, int i) {
  return i < call.num_out ? output<T>(call, i) : nullptr;
}

// The buffers of an op that takes any number of them.
template <class T>
struct Inputs {
  const void* const* data;
  const int64_t* elements;
  const DType* types;
  int size;
  SCMOE_ALWAYS_INLINE const T* operator[](int i) const { return static_cast<const T*>(data[i]); }
};
template <class T>
struct Outputs {
  void* const* data;
  const int64_t* elements;
  const DType* types;
  int size;
  SCMOE_ALWAYS_INLINE T* operator[](int i) const { return static_cast<T*>(data[i]); }
};

// Compute runs on a stream: a team of threads on the CPU, a stream of the device on a GPU. Only the
// backend knows what it is.
struct Stream;

using OpFunction = void (*)(const OpCall& call, Stream* stream);

struct OpEntry {
  const char* name;
  OpFunction run;
};

struct Backend {
  const char* name;    // "cpu-avx512", "cpu-avx2", "cpu-baseline", "cuda"
  const OpEntry* ops;  // compute ops only; collectives belong to the communicator
  int num_ops;
  bool has_bf16;                              // whether ops take activations in bf16
  Stream* (*stream_create)(int num_threads);  // num_threads >= 1 includes the calling thread
  void (*stream_destroy)(Stream* stream);
};

// The best CPU backend that this machine can run; SCMOE_CPU_ISA=avx512|avx2|baseline overrides.
// Never null; throws std::runtime_error on a bad override.
const Backend* cpu_backend();

// Kernels on a GPU (cuda/), in a library of their own, libscmoe_cuda.so, whose entry point is
// scmoe_device().
const Backend* cuda_backend();

// The plain loops that define every op (sums in double). Slow; for tests.
const Backend* reference_backend();

}  // namespace scmoe
