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
};

// The forward op of a case. Outputs start as noise, so that what an op must not touch is seen to stay.
Call forward_call(const Case& c, bool accumulate = false);

// One of the backward ops of a case, with random gradients from above and outputs that start as noise.
Call backward_call(const Case& c, const std::string& op, bool accumulate);

OpFunction function_of(const Backend& backend, const std::string& op);

// Buffers of Real (f32 kernels: float) filled from a call; each has exactly its size, so that a sanitizer sees the
// first element beyond it.
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
    void* data();
  };
  static Buffer buffer_of(const Value& value);

  Call call_;
  std::vector<Buffer> in_, out_;
  std::vector<const void*> in_pointers_;
  std::vector<void*> out_pointers_;
  std::vector<int64_t> in_elements_, out_elements_;
  std::vector<DType> in_types_, out_types_;
};

// Runs a call once; returns its outputs.
template <class Real>
std::map<std::string, Value> run(const Call& call, const Backend& backend, int num_threads = 1);

}  // namespace scmoe::test
