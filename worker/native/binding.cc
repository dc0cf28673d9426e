// The Node-API addon: worker/engine.ts on one side, engine/engine.h on the other. Only this file
// and binding/ know Node-API.
#include <napi.h>

#include "binding/native_engine.h"
#include "binding/values.h"
#include "hardware.h"
#include "program/op_table.h"

namespace scmoe::binding {
namespace {

// The op table as the loader knows it, for the test that compares it with worker/program/ops.ts.
Napi::Value describe_ops(const Napi::CallbackInfo& info) {
  Napi::Object table = Napi::Object::New(info.Env());
  for (const OpSpec& spec : op_table()) {
    const auto list = [&](const char* row) {
      Napi::Array array = Napi::Array::New(info.Env());
      for (const std::string& word : words(row)) array.Set(array.Length(), word);
      return array;
    };
    Napi::Object op = Napi::Object::New(info.Env());
    op.Set("queue", spec.comm ? "comm" : "compute");
    op.Set("inputs", list(spec.inputs));
    op.Set("outputs", list(spec.outputs));
    op.Set("attrs", list(spec.attrs));
    table.Set(spec.name, op);
  }
  return table;
}

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
  exports.Set("opTable", Napi::Function::New<describe_ops>(env, "opTable"));
  return exports;
}

}  // namespace
}  // namespace scmoe::binding

static Napi::Object init_addon(Napi::Env env, Napi::Object exports) {
  return scmoe::binding::init(env, exports);
}
NODE_API_MODULE(scmoe, init_addon)
