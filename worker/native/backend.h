// What a backend is: a table of ops. Missing hardware is another table, never an `if` at the caller.
// Meaning, shapes and order of inputs and outputs: worker/program/ops.ts, which this header follows name by name.
#pragma once

#include <cstdint>

namespace scmoe {

// Attributes of one op, parsed once at load; what an op does not name has the value below. Words (direction, group) are
// the communicator's and not among them.
struct Attrs {
  int64_t rows, dim, in, out;
  int64_t batch, sequence, heads, keyValueHeads, vocabulary;
  int64_t experts, topK, capacity;
  int64_t rank, worldSize, expertParallelSize;
  int64_t chunk, chunks = 1;
  int64_t elements, coefficients;
  int64_t accumulate, bias, inverse;  // 0 or 1
  float scale, auxCoefficient, zCoefficient;
  float base;
  float beta1, beta2, epsilon, weightDecay, clip;
};

// What the elements of a buffer are.
enum class DType : uint8_t { kF32, kI32, kBF16 };

// One op with its buffers bound. Pointers stay valid as long as the program is loaded. An optional buffer left out
// shortens the list.
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

// Where compute runs: a team of threads on the CPU, a stream on a GPU. Opaque to everyone but the backend.
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
  bool has_bf16;                              // whether ops take buffers of bf16 where the op table marks them
  Stream* (*stream_create)(int num_threads);  // num_threads >= 1 includes the calling thread
  void (*stream_destroy)(Stream* stream);
};

// The best CPU backend this machine can run; SCMOE_CPU_ISA=avx512|avx2|baseline overrides. Never null; throws
// std::runtime_error on a bad override.
const Backend* cpu_backend();

// Kernels on a GPU (cuda/), in a library of its own, libscmoe_cuda.so, whose entry point is scmoe_device().
const Backend* cuda_backend();

// The plain loops that define every op (double accumulation). Slow; for tests.
const Backend* reference_backend();

}  // namespace scmoe
