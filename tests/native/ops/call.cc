#include "call.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>

#include "cpu/reference/reference.h"

namespace scmoe::test {
namespace {

Value noise(const BufferSpec& spec, int64_t elements, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> draw;
  Value value{spec.type == BufferType::kI32, {}, {}};
  if (value.integer) {
    value.whole.assign(elements, -77);
  } else {
    value.real.resize(elements);
    for (double& x : value.real) x = draw(engine);
  }
  return value;
}

// Whether the attributes say that the op has no such buffer.
bool is_left_out(const BufferSpec& spec, const Attrs& attrs) {
  return spec.when != nullptr && attrs.*attr_spec(spec.when).integer != spec.is;
}

bool must_be_given(const BufferSpec& spec, const Attrs& attrs) {
  return !spec.optional && !is_left_out(spec, attrs);
}

// "dx" -> "x"
std::string source_of(const std::string& gradient) {
  return gradient.substr(1);
}

// Rounded to float, as kernels see it.
Value rounded(Value value) {
  for (double& x : value.real) x = static_cast<float>(x);
  return value;
}

// A random gradient of one output of the forward op. It is 0 for a dropped choice.
Value gradient_of(const Case& c, const BufferSpec& spec, const std::map<std::string, Value>& forward) {
  const std::string name = spec.name;
  Value grad = noise(spec, c.outputs.at(source_of(name)), 31 + name.size());
  if (name == "dweight") {
    const Value& slot = forward.at("slot");
    for (int64_t i = 0; i < grad.elements(); i++)
      if (slot.whole[i] < 0) grad.real[i] = 0;
  }
  return grad;
}

}  // namespace

namespace {

bool is_activation(const std::vector<BufferSpec>& names, const std::string& text) {
  for (const BufferSpec& spec : names)
    if (spec.name == text) return spec.type == BufferType::kActivation;
  return false;
}

void round(Value& value) {
  for (double& x : value.real) x = rounded_to_bf16(x);
}

uint16_t half_of(double x) {
  const float single = static_cast<float>(x);
  uint32_t bits;
  std::memcpy(&bits, &single, sizeof bits);
  return static_cast<uint16_t>(bits >> 16);
}

double from_half(uint16_t half) {
  const uint32_t bits = uint32_t{half} << 16;
  float single;
  std::memcpy(&single, &bits, sizeof single);
  return single;
}

}  // namespace

double rounded_to_bf16(double x) {
  const float single = static_cast<float>(x);
  uint32_t bits;
  std::memcpy(&bits, &single, sizeof bits);
  if (!std::isfinite(single)) return single;
  bits += 0x7fff + (bits >> 16 & 1);
  return from_half(static_cast<uint16_t>(bits >> 16));
}

void round_activations(Call& call) {
  const std::vector<BufferSpec>&inputs = inputs_of(call.op), &outputs = outputs_of(call.op);
  for (auto& [name, value] : call.in)
    if (is_activation(inputs, name)) round(value);
  for (auto& [name, value] : call.out)
    if (is_activation(outputs, name)) round(value);
  call.bf16 = true;
}

std::optional<Case> in_bf16(const Case& c) {
  Case half = c;
  half.bf16 = true;
  half.label += " bf16";
  bool any = false;
  for (const auto* specs : {&inputs_of(c.op), &outputs_of(c.op)}) {
    for (const BufferSpec& spec : *specs) {
      if (spec.type != BufferType::kActivation) continue;
      any = true;
      if (half.inputs.contains(spec.name)) round(half.inputs.at(spec.name));
    }
  }
  return any ? std::optional(half) : std::nullopt;
}

Call forward_call(const Case& c, bool accumulate) {
  Call call{.op = c.op, .attrs = c.attrs};
  call.attrs.accumulate = accumulate;
  for (const BufferSpec& spec : inputs_of(c.op)) {
    if (spec.repeated) {
      for (const Value& value : c.list) call.in.emplace_back(spec.name, value);
    } else if (must_be_given(spec, c.attrs) || c.inputs.contains(spec.name)) {
      call.in.emplace_back(spec.name, c.inputs.at(spec.name));
    }
  }
  uint64_t seed = 1;
  const bool is_copy = !call.in.empty();  // an op from list to list does not start from its outputs
  for (const BufferSpec& spec : outputs_of(c.op)) {
    if (spec.repeated) {
      for (const Value& value : c.list)
        call.out.emplace_back(spec.name, is_copy ? noise(spec, value.elements(), seed++) : value);
    } else if (must_be_given(spec, c.attrs) || c.outputs.contains(spec.name)) {
      const bool given = spec.accumulate && c.inputs.contains(spec.name);
      call.out.emplace_back(spec.name, given ? c.inputs.at(spec.name) : noise(spec, c.outputs.at(spec.name), seed++));
    }
  }
  if (c.bf16) round_activations(call);
  return call;
}

Call backward_call(const Case& c, const std::string& op, bool accumulate) {
  Call plain = forward_call(c);
  plain.bf16 = false;
  const std::map<std::string, Value> forward = run<double>(plain, *reference_backend_f64());
  Call call{.op = op, .attrs = c.attrs};
  call.attrs.accumulate = accumulate;
  for (const BufferSpec& spec : inputs_of(op)) {
    const std::string name = spec.name;
    const bool from_above = name[0] == 'd' && c.outputs.contains(source_of(name));
    if (is_left_out(spec, c.attrs)) continue;
    if (from_above) {
      call.in.emplace_back(name, gradient_of(c, spec, forward));
    } else if (c.inputs.contains(name)) {
      call.in.emplace_back(name, c.inputs.at(name));
    } else if (forward.contains(name)) {
      call.in.emplace_back(name, rounded(forward.at(name)));
    } else if (!spec.optional) {
      throw std::runtime_error(op + ": nothing gives input " + name);
    }
  }
  uint64_t seed = 101;
  for (const BufferSpec& spec : outputs_of(op)) {
    const std::string source = source_of(spec.name);
    if (spec.optional && !c.inputs.contains(source)) continue;
    call.out.emplace_back(spec.name, noise(spec, c.inputs.at(source).elements(), seed++));
  }
  if (c.bf16) round_activations(call);
  return call;
}

OpFunction function_of(const Backend& backend, const std::string& op) {
  for (int i = 0; i < backend.num_ops; i++)
    if (backend.ops[i].name == op) return backend.ops[i].run;
  throw std::runtime_error(std::string(backend.name) + " has no op " + op);
}

template <class Real>
void* Bound<Real>::Buffer::data() {
  if (!half.empty()) return half.data();
  return whole.empty() ? static_cast<void*>(real.data()) : static_cast<void*>(whole.data());
}

template <class Real>
DType Bound<Real>::Buffer::type() const {
  return !half.empty() ? DType::kBF16 : whole.empty() ? DType::kF32 : DType::kI32;
}

// Fills a buffer and keeps its memory.
template <class Real>
void Bound<Real>::Buffer::fill(const Value& value, bool bf16) {
  whole.assign(value.whole.begin(), value.whole.end());
  if (bf16) {
    half.resize(value.real.size());
    std::transform(value.real.begin(), value.real.end(), half.begin(), half_of);
  } else {
    real.assign(value.real.begin(), value.real.end());
  }
}

template <class Real>
Value Bound<Real>::Buffer::value() const {
  Value value{!whole.empty(), {real.begin(), real.end()}, whole};
  for (const uint16_t x : half) value.real.push_back(from_half(x));
  return value;
}

template <class Real>
Bound<Real>::Bound(const Call& call) : call_(call), in_(call.in.size()), out_(call.out.size()) {
  const std::vector<BufferSpec>&inputs = inputs_of(call.op), &outputs = outputs_of(call.op);
  const auto half = [&](const std::vector<BufferSpec>& names, const std::string& name) {
    return call.bf16 && is_activation(names, name);
  };
  for (size_t i = 0; i < in_.size(); i++) in_[i].fill(call.in[i].second, half(inputs, call.in[i].first));
  for (size_t i = 0; i < out_.size(); i++) out_[i].fill(call.out[i].second, half(outputs, call.out[i].first));
  for (Buffer& buffer : in_) in_pointers_.push_back(buffer.data()), in_types_.push_back(buffer.type());
  for (size_t i = 0; i < out_.size(); i++) {
    Buffer& buffer = place_of(i);
    results_.push_back(&buffer), out_pointers_.push_back(buffer.data()), out_types_.push_back(buffer.type());
  }
  for (const auto& [name, value] : call.in) in_elements_.push_back(value.elements());
  for (const auto& [name, value] : call.out) out_elements_.push_back(value.elements());
}

template <class Real>
typename Bound<Real>::Buffer& Bound<Real>::place_of(size_t output) {
  for (size_t i = 0; call_.in_place && i < in_.size(); i++)
    if (source_of(call_.out[output].first) == call_.in[i].first) return in_[i];
  return out_[output];
}

template <class Real>
void Bound<Real>::reset() {
  for (size_t i = 0; i < out_.size(); i++) out_[i].fill(call_.out[i].second, !out_[i].half.empty());
}

template <class Real>
void Bound<Real>::run(OpFunction function, Stream* stream) const {
  const OpCall bound{in_pointers_.data(),  in_elements_.data(),  in_types_.data(),  static_cast<int>(in_.size()),
                     out_pointers_.data(), out_elements_.data(), out_types_.data(), static_cast<int>(out_.size()),
                     &call_.attrs};
  function(bound, stream);
}

template <class Real>
std::vector<std::pair<std::string, Value>> Bound<Real>::outputs() const {
  std::vector<std::pair<std::string, Value>> values;
  for (size_t i = 0; i < out_.size(); i++) values.emplace_back(call_.out[i].first, results_[i]->value());
  return values;
}

template class Bound<float>;
template class Bound<double>;

// All calls of a backend with the same number of threads share one stream, so an op meets in
// scratch the contents that earlier ops have left.
template <class Real>
std::map<std::string, Value> run(const Call& call, const Backend& backend, int num_threads) {
  using Key = std::pair<Stream* (*)(int), int>;
  static std::map<Key, std::unique_ptr<Stream, void (*)(Stream*)>> streams;
  const Key key{backend.stream_create, num_threads};
  auto found = streams.find(key);
  if (found == streams.end())
    found = streams.try_emplace(key, backend.stream_create(num_threads), backend.stream_destroy).first;
  const Bound<Real> bound(call);
  bound.run(function_of(backend, call.op), found->second.get());
  std::map<std::string, Value> named;
  for (const auto& [name, value] : bound.outputs()) {
    std::string key = name;
    for (int i = 2; named.contains(key); i++) key = name + ' ' + std::to_string(i);
    named.emplace(key, value);
  }
  return named;
}

template std::map<std::string, Value> run<float>(const Call&, const Backend&, int);
template std::map<std::string, Value> run<double>(const Call&, const Backend&, int);

}  // namespace scmoe::test
