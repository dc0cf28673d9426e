// What one case is: an op, its attributes and named values. The same list drives correctness, gradients and timing.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "backend.h"

namespace scmoe::test {

// Inputs, outputs and attributes of an op by name, as worker/program/ops.ts spells them (tests/native/ops.test.ts
// compares the two).
struct Signature {
  const char* op;
  const char* inputs;
  const char* outputs;
  const char* attrs;
};
extern const std::vector<Signature> kSignatures;

struct Name {
  std::string text;
  bool optional = false, accumulated = false, list = false;
};
std::vector<Name> inputs_of(const std::string& op);
std::vector<Name> outputs_of(const std::string& op);
std::vector<std::string> backward_of(const std::string& op);
bool accumulates(const std::string& op);  // takes the attribute `accumulate`: its first output may be added to

// The contents of a buffer: doubles stand for f32 until the op runs.
struct Value {
  bool integer = false;
  std::vector<double> real;
  std::vector<int32_t> whole;
  int64_t elements() const { return static_cast<int64_t>(integer ? whole.size() : real.size()); }
};

struct Case {
  std::string op, label;
  Attrs attrs{};
  std::map<std::string, Value> inputs{};     // also what only the backward op reads, as allCounts of the router
  std::map<std::string, int64_t> outputs{};  // elements; an optional output left out is absent
  std::vector<Value> list{};                 // instead, for ops over a list of buffers
  double flops = 0;                          // of the forward op; 0: limited by memory, reported as GB/s
  bool timed = false;                        // a training shape: only run by --time
  bool differentiable = true;                // false where a small step changes a choice
};

const std::vector<Case>& all_cases();

// The forward ops of one pair of blocks, dense then mixture of experts, as one rank with all experts runs them.
std::vector<Case> pair_cases();

}  // namespace scmoe::test
