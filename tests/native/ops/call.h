// One op with values for all its buffers, and how to run it on any backend.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "case.h"

namespace scmoe::test {

struct Call {
  std::string op;
  Attrs attrs{};
  std::vector<std::pair<std::string, Value>> in{}, out{};  // out: what the buffers hold before the run
  bool bf16 = false;
  bool in_place = false;  // the gradient of an input lies where the input does
};

// The forward op of a case. Outputs start as noise, so that what an op must not touch is seen to stay.
Call forward_call(const Case& c, bool accumulate = false);

// One of the backward ops of a case, with random gradients from above and outputs that start as noise.
Call backward_call(const Case& c, const std::string& op, bool accumulate);

OpFunction function_of(const Backend& backend, const std::string& op);

// Activations rounded to what bf16 holds, and kept so.
void round_activations(Call& call);

// Buffers of Real (f32 kernels: float; activations bf16 where the call says so) filled from a call; each has exactly
// its size, so that a sanitizer sees the first element beyond it.
template <class Real>
class Bound {
 public:
  explicit Bound(const Call& call);
  void reset();  // outputs as before the run
  void run(OpFunction function, Stream* stream) const;
  std::vector<std::pair<std::string, Value>> outputs() const;

 private:
  struct Buffer {
    std::vector<Real> real;
    std::vector<int32_t> whole;
    std::vector<uint16_t> half;
    void* data();
    DType type() const;
    void fill(const Value& value, bool bf16);
    Value value() const;
  };
  Buffer& place_of(size_t output);

  Call call_;
  std::vector<Buffer> in_, out_;
  std::vector<Buffer*> results_;  // where each output lies
  std::vector<const void*> in_pointers_;
  std::vector<void*> out_pointers_;
  std::vector<int64_t> in_elements_, out_elements_;
  std::vector<DType> in_types_, out_types_;
};

// Runs a call once; returns its outputs. Of a list the first has the list's name, the others "buffers 2" and so on.
template <class Real>
std::map<std::string, Value> run(const Call& call, const Backend& backend, int num_threads = 1);

}  // namespace scmoe::test
