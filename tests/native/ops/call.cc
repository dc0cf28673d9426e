#include "call.h"

#include <memory>
#include <random>
#include <stdexcept>

#include "cpu/reference.h"

namespace scmoe::test {
namespace {

bool is_integer(const std::string& name) {
  return name == "expert" || name == "slot" || name == "counts";
}

Value noise(const std::string& name, int64_t elements, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> draw;
  Value value{is_integer(name), {}, {}};
  if (value.integer) {
    value.whole.assign(elements, -77);
  } else {
    value.real.resize(elements);
    for (double& x : value.real) x = draw(engine);
  }
  return value;
}

std::string source_of(const std::string& gradient) {
  return gradient.substr(1);
}  // dx -> x

// As the kernels will see it: rounded to float.
Value rounded(Value value) {
  for (double& x : value.real) x = static_cast<float>(x);
  return value;
}

// The gradient of one output from above; a dropped choice has none.
Value gradient_of(const Case& c, const std::string& name, const std::map<std::string, Value>& forward) {
  Value grad = noise(name, c.outputs.at(source_of(name)), 31 + name.size());
  if (name == "dweight") {
    const Value& slot = forward.at("slot");
    for (int64_t i = 0; i < grad.elements(); i++)
      if (slot.whole[i] < 0) grad.real[i] = 0;
  }
  return grad;
}

}  // namespace

Call forward_call(const Case& c, bool accumulate) {
  Call call{.op = c.op, .attrs = c.attrs};
  call.attrs.accumulate = accumulate;
  for (const Name& name : inputs_of(c.op)) {
    if (name.list) {
      for (const Value& value : c.list) call.in.emplace_back(name.text, value);
    } else if (!name.optional || c.inputs.contains(name.text)) {
      call.in.emplace_back(name.text, c.inputs.at(name.text));
    }
  }
  uint64_t seed = 1;
  for (const Name& name : outputs_of(c.op)) {
    if (name.list) {
      for (const Value& value : c.list) call.out.emplace_back(name.text, value);
    } else if (!name.optional || c.outputs.contains(name.text)) {
      const bool given = name.accumulated && c.inputs.contains(name.text);
      call.out.emplace_back(name.text,
                            given ? c.inputs.at(name.text) : noise(name.text, c.outputs.at(name.text), seed++));
    }
  }
  return call;
}

Call backward_call(const Case& c, const std::string& op, bool accumulate) {
  const std::map<std::string, Value> forward = run<double>(forward_call(c), *reference_backend_f64());
  Call call{.op = op, .attrs = c.attrs};
  call.attrs.accumulate = accumulate;
  for (const Name& name : inputs_of(op)) {
    const bool from_above = name.text[0] == 'd' && c.outputs.contains(source_of(name.text));
    if (op == "gated_add_backward" && name.text == "m" && c.attrs.coefficients == 1) continue;  // weighs nothing then
    if (from_above) {
      call.in.emplace_back(name.text, gradient_of(c, name.text, forward));
    } else if (c.inputs.contains(name.text)) {
      call.in.emplace_back(name.text, c.inputs.at(name.text));
    } else if (forward.contains(name.text)) {
      call.in.emplace_back(name.text, rounded(forward.at(name.text)));
    } else if (!name.optional) {
      throw std::runtime_error(op + ": nothing gives input " + name.text);
    }
  }
  uint64_t seed = 101;
  for (const Name& name : outputs_of(op)) {
    const std::string source = source_of(name.text);
    if (name.optional && !c.inputs.contains(source)) continue;
    call.out.emplace_back(name.text, noise(name.text, c.inputs.at(source).elements(), seed++));
  }
  return call;
}

OpFunction function_of(const Backend& backend, const std::string& op) {
  for (int i = 0; i < backend.num_ops; i++)
    if (backend.ops[i].name == op) return backend.ops[i].run;
  throw std::runtime_error(std::string(backend.name) + " has no op " + op);
}

template <class Real>
void* Bound<Real>::Buffer::data() {
  return whole.empty() ? static_cast<void*>(real.data()) : static_cast<void*>(whole.data());
}

template <class Real>
typename Bound<Real>::Buffer Bound<Real>::buffer_of(const Value& value) {
  return {std::vector<Real>(value.real.begin(), value.real.end()), value.whole};
}

template <class Real>
Bound<Real>::Bound(const Call& call) : call_(call) {
  for (const auto& [name, value] : call.in) {
    in_.push_back(buffer_of(value));
    in_types_.push_back(value.integer ? DType::kI32 : DType::kF32);
    in_elements_.push_back(value.elements());
  }
  for (const auto& [name, value] : call.out) {
    out_.push_back(buffer_of(value));
    out_types_.push_back(value.integer ? DType::kI32 : DType::kF32);
    out_elements_.push_back(value.elements());
  }
  for (Buffer& buffer : in_) in_pointers_.push_back(buffer.data());
  for (Buffer& buffer : out_) out_pointers_.push_back(buffer.data());
}

template <class Real>
void Bound<Real>::reset() {
  for (size_t i = 0; i < out_.size(); i++) {
    const Value& value = call_.out[i].second;
    std::copy(value.real.begin(), value.real.end(), out_[i].real.begin());
    std::copy(value.whole.begin(), value.whole.end(), out_[i].whole.begin());
  }
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
  for (size_t i = 0; i < out_.size(); i++) {
    const Buffer& buffer = out_[i];
    const bool integer = call_.out[i].second.integer;
    values.emplace_back(call_.out[i].first, Value{integer, {buffer.real.begin(), buffer.real.end()}, buffer.whole});
  }
  return values;
}

template class Bound<float>;
template class Bound<double>;

// One stream for all calls of a backend with so many threads: what an op leaves in scratch is there for the next.
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
  const auto values = bound.outputs();
  return {values.begin(), values.end()};
}

template std::map<std::string, Value> run<float>(const Call&, const Backend&, int);
template std::map<std::string, Value> run<double>(const Call&, const Backend&, int);

}  // namespace scmoe::test
