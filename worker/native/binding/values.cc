#include "binding/values.h"

#include <algorithm>
#include <cstring>

namespace scmoe::binding {

Napi::Error to_js(Napi::Env env, const Error& error) {
  Napi::Error js = Napi::Error::New(env, error.what());
  js.Set("code", error.code);
  if (!error.op.empty()) js.Set("op", error.op);
  if (error.peer >= 0) js.Set("peer", Napi::Number::New(env, error.peer));
  return js;
}

Napi::Float64Array to_js(Napi::Env env, const std::vector<double>& values) {
  Napi::Float64Array array = Napi::Float64Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

int integer(const Napi::Value& value, const char* name) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : 0.5;
  if (number == double(int(number))) return int(number);
  throw Napi::TypeError::New(value.Env(), std::string(name) + " wants an integer");
}

std::string text(const Napi::Value& value, const char* name) {
  if (value.IsString()) return value.As<Napi::String>();
  throw Napi::TypeError::New(value.Env(), std::string(name) + " wants a string");
}

std::vector<std::string> texts(const Napi::Value& value, const char* name) {
  std::vector<std::string> list;
  if (!value.IsArray()) throw Napi::TypeError::New(value.Env(), std::string(name) + " wants a list");
  const Napi::Array array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) list.push_back(text(array.Get(i), name));
  return list;
}

std::vector<double> doubles(const Napi::Value& value, const char* name) {
  const bool fits = value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == napi_float64_array;
  if (!fits) throw Napi::TypeError::New(value.Env(), std::string(name) + " wants a Float64Array");
  const Napi::Float64Array array = value.As<Napi::Float64Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

std::vector<PeerAddress> peers(const Napi::Value& value) {
  std::vector<PeerAddress> peers;
  if (!value.IsArray()) throw Napi::TypeError::New(value.Env(), "peers wants a list");
  const Napi::Array list = value.As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); ++i) {
    if (!list.Get(i).IsObject()) throw Napi::TypeError::New(value.Env(), "a peer wants {host, port}");
    const Napi::Object peer = list.Get(i).As<Napi::Object>();
    peers.push_back({text(peer.Get("host"), "host"), integer(peer.Get("port"), "port")});
  }
  return peers;
}

TokenDigest digest(const Napi::Value& value) {
  TokenDigest token;
  const bool fits = value.IsTypedArray() && value.As<Napi::TypedArray>().ByteLength() == token.size();
  if (!fits) throw Napi::TypeError::New(value.Env(), "token digest wants 32 bytes");
  std::memcpy(token.data(), value.As<Napi::Uint8Array>().Data(), token.size());
  return token;
}

EngineOptions engine_options(const Napi::Object& object) {
  const auto field = [&](const char* name) { return integer(object.Get(name), name); };
  EngineOptions options;
  options.topology = {field("rank"), field("worldSize"), field("expertParallelSize")};
  options.compute_threads = field("computeThreads");
  options.timeout = std::chrono::milliseconds(field("timeoutMilliseconds"));
  return options;
}

HardwareOptions hardware_options(const Napi::Object& object) {
  const auto field = [&](const char* name) { return integer(object.Get(name), name); };
  HardwareOptions options;
  options.backend = text(object.Get("backend"), "backend");
  options.device.index = field("device");
  options.device.graphs = field("graphs") != 0;
  options.device.collectives = {field("maxCtas"), field("ctaPolicy"), field("padded") != 0};
  return options;
}

}  // namespace scmoe::binding
