// The Node-API addon: worker/engine.ts on one side, engine/engine.h on the other. Only this file
// and binding/ know Node-API.
#include <napi.h>

#include "binding/native_engine.h"
#include "binding/values.h"
#include "hardware.h"

namespace scmoe::binding {
namespace {

Napi::Object to_js(Napi::Env env, const Part& part) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("path", part.path);
  object.Set("text", part.text);
  object.Set("missing", part.missing);
  return object;
}

// The hardware and software that this process finds, for `scmoe doctor`.
Napi::Value inspect(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Inspection found = translate(env, [] { return inspect_hardware(); });
  Napi::Object result = Napi::Object::New(env);
  result.Set("cpu", found.cpu);
  result.Set("driver", to_js(env, found.driver));
  result.Set("library", to_js(env, found.library));
  result.Set("nccl", to_js(env, found.nccl));
  Napi::Array devices = Napi::Array::New(env);
  for (const DeviceInfo& device : found.devices) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("name", std::string(device.name));
    object.Set("computeCapability", std::to_string(device.compute_major) + "." + std::to_string(device.compute_minor));
    object.Set("totalBytes", double(device.total_bytes));
    object.Set("freeBytes", double(device.free_bytes));
    devices.Set(devices.Length(), object);
  }
  result.Set("devices", devices);
  return result;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("NativeEngine", NativeEngine::define(env));
  exports.Set("inspect", Napi::Function::New<inspect>(env, "inspect"));
  return exports;
}

}  // namespace
}  // namespace scmoe::binding

static Napi::Object init_addon(Napi::Env env, Napi::Object exports) {
  return scmoe::binding::init(env, exports);
}
NODE_API_MODULE(scmoe, init_addon)
