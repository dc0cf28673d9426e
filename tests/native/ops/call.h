// One op with values for all its buffers, and a way to run it on any backend.
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
  std::vector<std::pair<std::string, Value>> in{}, out{};  // out: the contents before the run
  bool bf16 = false;
  bool in_place = false;  // the gradient of an input is in the buffer of that input
};

// The forward op of a case. Outputs start as noise, so that a check sees if an op writes elements
// that it must not touch.
Call forward_call(const Case& c, bool accumulate = false);

// One of the backward ops of a case, with random gradients of the forward op's outputs. Its own
// outputs start as noise.
Call backward_call(const Case& c, const std::string& op, bool accumulate);

OpFunction function_of(const Backend& backend, const std::string& op);

// Rounds activations to bf16 and keeps them in that type.
void round_activations(Call& call);

// Buffers filled from a call. Floating-point buffers are of Real (float for f32 kernels), and
// activations of bf16 if the call says so. Each buffer has exactly its size, so that a sanitizer
// notices an access to the first element beyond it.
template <class Real>
class Bound {
 public:
  explicit Bound(const Call& call);
  void reset();  // gives outputs the contents from before the run
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
  std::vector<Buffer*> results_;  // the buffer of each output
  std::vector<const void*> in_pointers_;
  std::vector<void*> out_pointers_;
  std::vector<int64_t> in_elements_, out_elements_;
  std::vector<DType> in_types_, out_types_;
};

// Runs a call once and returns its outputs. The first buffer of a list has the list's name, the
// others are "buffers 2" and so on.
template <class Real>
std::map<std::string, Value> run(const Call& call, const Backend& backend, int num_threads = 1);

}  // namespace scmoe::test
