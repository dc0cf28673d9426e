// Values and errors on their way between JavaScript and C++.
#pragma once

#include <napi.h>

#include <string>
#include <vector>

#include "engine/engine.h"
#include "error.h"
#include "hardware.h"

namespace scmoe::binding {

// A JavaScript error with `code`, `op` and `peer`, which worker/engine.ts gives its class.
Napi::Error to_js(Napi::Env env, const Error& error);
Napi::Float64Array to_js(Napi::Env env, const std::vector<double>& values);

// Runs `call`; an exception becomes a JavaScript exception.
template <typename Call>
auto translate(Napi::Env env, Call call) {
  try {
    return call();
  } catch (const Error& error) {
    throw to_js(env, error);
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::invalid_argument& error) {
    throw Napi::RangeError::New(env, error.what());
  } catch (const std::exception& error) {
    throw Napi::Error::New(env, error.what());
  }
}

// Each throws a TypeError that names `name` if the value has another type.
int integer(const Napi::Value& value, const char* name);
std::string text(const Napi::Value& value, const char* name);
std::vector<std::string> texts(const Napi::Value& value, const char* name);
std::vector<double> doubles(const Napi::Value& value, const char* name);
// [{host, port}], by rank
std::vector<PeerAddress> peers(const Napi::Value& value);
// Uint8Array(32)
TokenDigest digest(const Napi::Value& value);

// The fields of `NativeOptions` in worker/engine.ts.
EngineOptions engine_options(const Napi::Object& object);
HardwareOptions hardware_options(const Napi::Object& object);

}  // namespace scmoe::binding
