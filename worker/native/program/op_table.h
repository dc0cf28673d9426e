// The op table as the loader reads it. Its rows are written in TypeScript (worker/program/ops.ts);
// `npm run generate` makes op_table.generated.h of them.
#pragma once

#include <limits>
#include <string_view>
#include <vector>

#include "program.h"

namespace scmoe {

// A number of elements, at least 0. Attributes come from a file, so their products may be larger
// than any integer: such a number is kTooMany, which no buffer has.
class Count {
 public:
  static constexpr int64_t kTooMany = std::numeric_limits<int64_t>::max();

  constexpr explicit Count(int64_t value) : value_(value) {}
  constexpr int64_t value() const { return value_; }

  friend Count operator+(Count a, Count b) {
    int64_t sum;
    return Count(__builtin_add_overflow(a.value_, b.value_, &sum) ? kTooMany : sum);
  }
  friend Count operator*(Count a, Count b) {
    int64_t product;
    return Count(__builtin_mul_overflow(a.value_, b.value_, &product) ? kTooMany : product);
  }
  // Stops at 0.
  friend Count operator-(Count a, Count b) { return Count(a.value_ > b.value_ ? a.value_ - b.value_ : 0); }
  // Rounds down. b comes from an attribute that is at least 1.
  friend Count operator/(Count a, Count b) { return Count(b.value_ > 0 ? a.value_ / b.value_ : kTooMany); }
  friend Count least(Count a, Count b) { return a.value_ < b.value_ ? a : b; }

 private:
  int64_t value_;
};

// The values from which the sizes of an op's buffers follow.
struct Sizes {
  const Attrs& attrs;
  int64_t world_size;
  size_t num_inputs;

  Count operator[](int64_t Attrs::*attr) const { return Count(attrs.*attr); }
  Count world() const { return Count(world_size); }
  Count given(size_t input) const { return Count(num_inputs > input ? 1 : 0); }
};

using SizeOf = Count (*)(const Sizes& sizes);

// kActivation is f32 or bf16, the same in all buffers of one op that have this type.
enum class BufferType : uint8_t { kF32, kI32, kActivation, kAny };

// The elements that a buffer needs: a number that follows from attributes (kElements); that number
// for each routed row (kRouted); as many as the input at the same place has (kAsInputs); or any
// number (kAny).
enum class Extent : uint8_t { kElements, kRouted, kAsInputs, kAny };

struct BufferSpec {
  const char* name;
  BufferType type;
  bool optional = false, repeated = false, accumulate = false;
  // Unless null, the buffer is given if this attribute is `is`, and otherwise left out.
  const char* when = nullptr;
  int64_t is = 0;
  // The inputs that the output may be; other outputs have no memory in common with any buffer.
  std::vector<const char*> may_be = {};
  // Whether an input's numbers find elements of other buffers. They are at least `from`, and below
  // `below` unless it is null. `limit` is `below` in words.
  bool indexes = false;
  int64_t from = 0;
  const char* limit = "";
  SizeOf below = nullptr;
  Extent extent = Extent::kElements;
  const char* formula = "";  // `elements` in words
  SizeOf elements = nullptr;
};

enum class Word : uint8_t { kNone, kDirection, kGroup };

// An attribute is an integer from `least` to `most`, a real number or one of `words`.
struct AttrSpec {
  static constexpr int64_t kRequired = -1;

  const char* name;
  int64_t Attrs::*integer = nullptr;
  int64_t least = 0, most = 0;
  int64_t preset = kRequired;  // the value of an attribute that is left out
  int Topology::*equals = nullptr;
  float Attrs::*real = nullptr;
  Word word = Word::kNone;
  std::vector<const char*> words = {};
};

struct Rule {
  enum Kind : uint8_t { kMultipleOf, kAtMost };
  const char* attr;
  Kind kind;
  const char* formula;  // `size` in words
  SizeOf size;
};

enum class Place : uint8_t { kAnywhere, kShared, kApart };

struct OpSpec {
  const char* name;
  Collective collective = Collective::kNone;  // of a comm op; kDispatch stands for both directions
  Place place = Place::kAnywhere;             // whether outputs have to be, or cannot be, inputs
  std::vector<BufferSpec> inputs, outputs;
  std::vector<const char*> attrs;
  std::vector<Rule> rules = {};
  bool placed = false;  // whether the op finds rows by its inputs expert, slot and counts
  // The input that counts routed rows, or -1. The attributes and rules after it concern an op with
  // that input.
  int routed_by = -1;
  std::vector<const char*> routed_attrs = {};
  std::vector<Rule> routed_rules = {};

  bool is_comm() const { return collective != Collective::kNone; }
  bool takes(std::string_view attr) const;
};

const std::vector<OpSpec>& op_table();
const OpSpec* find_op(std::string_view name);      // null: there is no such op
const AttrSpec& attr_spec(std::string_view name);  // of an attribute that a row names

// The row's buffers at the places of an op with `count` of them; empty if the row allows no such
// number. Optional buffers are given from the left.
std::vector<const BufferSpec*> given(const std::vector<BufferSpec>& specs, size_t count, const Attrs& attrs);

}  // namespace scmoe
