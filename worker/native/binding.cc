// The one file that knows Node-API: worker/engine.ts on one side, engine.h on the other. Plain data across, a promise
// out. Errors cross as JavaScript errors with `code`, `op` and `peer`; worker/engine.ts gives them their class.
#include <napi.h>

#include <cstring>

#include "engine.h"
#include "hardware.h"

namespace scmoe {
namespace {

Napi::Error to_js(Napi::Env env, const Error& error) {
  Napi::Error js = Napi::Error::New(env, error.what());
  js.Set("code", error.code);
  if (!error.op.empty()) js.Set("op", error.op);
  if (error.peer >= 0) js.Set("peer", Napi::Number::New(env, error.peer));
  return js;
}

// Runs `call`; what it throws becomes a JavaScript exception.
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

int integer(const Napi::Value& value, const char* name) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : 0.5;
  if (number == double(int(number))) return int(number);
  throw Napi::TypeError::New(value.Env(), std::string(name) + " wants an integer");
}

std::string text(const Napi::Value& value, const char* name) {
  if (value.IsString()) return value.As<Napi::String>();
  throw Napi::TypeError::New(value.Env(), std::string(name) + " wants a string");
}

EngineOptions parse_options(const Napi::Object& object) {
  const auto field = [&](const char* name) { return integer(object.Get(name), name); };
  EngineOptions options;
  options.topology = {field("rank"), field("worldSize"), field("expertParallelSize")};
  options.compute_threads = field("computeThreads");
  options.timeout = std::chrono::milliseconds(field("timeoutMilliseconds"));
  return options;
}

HardwareOptions parse_hardware(const Napi::Object& object) {
  const auto field = [&](const char* name) { return integer(object.Get(name), name); };
  HardwareOptions options;
  options.backend = text(object.Get("backend"), "backend");
  options.device.index = field("device");
  options.device.graphs = field("graphs") != 0;
  options.device.collectives = {field("maxCtas"), field("ctaPolicy"), field("padded") != 0};
  return options;
}

std::vector<std::string> texts(const Napi::Value& value, const char* name) {
  std::vector<std::string> list;
  if (!value.IsArray()) throw Napi::TypeError::New(value.Env(), std::string(name) + " wants a list");
  const Napi::Array array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) list.push_back(text(array.Get(i), name));
  return list;
}

Napi::Float64Array to_js(Napi::Env env, const std::vector<double>& values) {
  Napi::Float64Array array = Napi::Float64Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

class NativeEngine : public Napi::ObjectWrap<NativeEngine> {
 public:
  static Napi::Function define(Napi::Env env) {
    using N = NativeEngine;
    return DefineClass(
        env, "NativeEngine",
        {InstanceAccessor<&N::description>("description"), InstanceAccessor<&N::bytes_sent>("bytesSent"),
         InstanceMethod<&N::listen>("listen"), InstanceMethod<&N::connect>("connect"), InstanceMethod<&N::load>("load"),
         InstanceMethod<&N::run>("run"), InstanceMethod<&N::view>("view"), InstanceMethod<&N::upload>("upload"),
         InstanceMethod<&N::download>("download"), InstanceMethod<&N::available_memory>("availableMemory"),
         InstanceMethod<&N::all_reduce>("allReduce"), InstanceMethod<&N::abort>("abort"),
         InstanceMethod<&N::close>("close")});
  }

  explicit NativeEngine(const Napi::CallbackInfo& info) : Napi::ObjectWrap<NativeEngine>(info), env_(info.Env()) {
    if (!info[0].IsObject()) throw Napi::TypeError::New(env_, "engine options are missing");
    const EngineOptions options = parse_options(info[0].As<Napi::Object>());
    const HardwareOptions hardware = parse_hardware(info[0].As<Napi::Object>());
    engine_ = translate(env_, [&] { return std::make_unique<Engine>(options, executor_for(hardware)); });
    const auto nothing = [](const Napi::CallbackInfo&) {};
    settle_ = Napi::ThreadSafeFunction::New(env_, Napi::Function::New(env_, nothing), "scmoe", 0, 1);
    settle_.Unref(env_);  // an idle engine keeps no process alive; a pending call does
    // A process that ends without close(): the threads must be gone before what they use is.
    napi_add_env_cleanup_hook(env_, shut, this);
  }

  ~NativeEngine() override {
    if (!engine_) return;  // the constructor threw
    napi_remove_env_cleanup_hook(env_, shut, this);
    shut(this);
  }

 private:
  // What a promise resolves to, made on JavaScript's thread once the call has succeeded.
  using Result = std::function<Napi::Value(Napi::Env env)>;

  struct Call {
    NativeEngine* self;
    Napi::Promise::Deferred deferred;
    Result result;
    std::optional<Error> error;
  };

  Napi::Value description(const Napi::CallbackInfo& info) {
    return Napi::String::New(info.Env(), engine_->description());
  }

  Napi::Value bytes_sent(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), double(engine_->bytes_sent()));
  }

  Napi::Value listen(const Napi::CallbackInfo& info) {
    const int port = integer(info[0], "port");
    return Napi::Number::New(info.Env(), translate(info.Env(), [&] { return engine_->listen(port); }));
  }

  // peers: [{host, port}], token digest: Uint8Array(32)
  Napi::Value connect(const Napi::CallbackInfo& info) {
    std::vector<PeerAddress> peers;
    if (!info[0].IsArray()) throw Napi::TypeError::New(info.Env(), "peers wants a list");
    const Napi::Array list = info[0].As<Napi::Array>();
    for (uint32_t i = 0; i < list.Length(); ++i) {
      if (!list.Get(i).IsObject()) throw Napi::TypeError::New(info.Env(), "a peer wants {host, port}");
      const Napi::Object peer = list.Get(i).As<Napi::Object>();
      peers.push_back({text(peer.Get("host"), "host"), integer(peer.Get("port"), "port")});
    }
    TokenDigest token;
    const bool bytes = info[1].IsTypedArray() && info[1].As<Napi::TypedArray>().ByteLength() == token.size();
    if (!bytes) throw Napi::TypeError::New(info.Env(), "token digest wants 32 bytes");
    std::memcpy(token.data(), info[1].As<Napi::Uint8Array>().Data(), token.size());
    return start(
        info.Env(), [](Napi::Env env) { return env.Undefined(); },
        [&](Engine::Done done) { engine_->connect(std::move(peers), token, std::move(done)); });
  }

  void load(const Napi::CallbackInfo& info) {
    const std::string json = text(info[0], "program");
    check_idle(info.Env());
    translate(info.Env(), [&] { engine_->load(json); });
  }

  Napi::Value run(const Napi::CallbackInfo& info) {
    const std::string name = text(info[0], "name");
    const Result times = [this](Napi::Env env) {
      Napi::Object result = Napi::Object::New(env);
      result.Set("start", to_js(env, engine_->times().start));
      result.Set("end", to_js(env, engine_->times().end));
      result.Set("ready", to_js(env, engine_->times().ready));
      result.Set("cpu", to_js(env, engine_->times().cpu));
      return result;
    };
    return start(info.Env(), times, [&](Engine::Done done) { engine_->run(name, std::move(done)); });
  }

  Napi::Value all_reduce(const Napi::CallbackInfo& info) {
    const bool doubles =
        info[0].IsTypedArray() && info[0].As<Napi::TypedArray>().TypedArrayType() == napi_float64_array;
    if (!doubles) throw Napi::TypeError::New(info.Env(), "values wants a Float64Array");
    const Napi::Float64Array array = info[0].As<Napi::Float64Array>();
    const auto values = std::make_shared<std::vector<double>>(array.Data(), array.Data() + array.ElementLength());
    return start(
        info.Env(), [values](Napi::Env env) { return to_js(env, *values); },
        [&](Engine::Done done) { engine_->all_reduce(values, std::move(done)); });
  }

  // One ArrayBuffer covers the arena; close() detaches it, and every view of it becomes empty.
  Napi::Value view(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const std::string name = text(info[0], "buffer");
    const BufferView view = translate(env, [&] { return engine_->view(name); });
    if (memory_.IsEmpty()) {
      auto* const owner = new std::shared_ptr<Arena>(view.arena);
      const auto release = [](Napi::Env, void*, std::shared_ptr<Arena>* arena) { delete arena; };
      memory_ = Napi::Persistent(
          Napi::ArrayBuffer::New(env, view.arena->data(), size_t(view.arena->bytes()), release, owner));
    }
    if (view.dtype == DType::kBF16) {
      throw Napi::TypeError::New(env, "view: buffer '" + name + "' is bf16, for which JavaScript has no array");
    }
    if (view.dtype == DType::kI32) return Napi::Int32Array::New(env, view.elements, memory_.Value(), view.offset);
    return Napi::Float32Array::New(env, view.elements, memory_.Value(), view.offset);
  }

  void upload(const Napi::CallbackInfo& info) {
    const std::vector<std::string> buffers = texts(info[0], "buffers");
    check_idle(info.Env());
    translate(info.Env(), [&] { engine_->upload(buffers); });
  }

  void download(const Napi::CallbackInfo& info) {
    const std::vector<std::string> buffers = texts(info[0], "buffers");
    check_idle(info.Env());
    translate(info.Env(), [&] { engine_->download(buffers); });
  }

  Napi::Value available_memory(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), double(translate(info.Env(), [&] { return engine_->available_memory(); })));
  }

  void abort(const Napi::CallbackInfo&) { engine_->abort(); }

  void close(const Napi::CallbackInfo& info) {
    const Napi::HandleScope scope(info.Env());
    if (!memory_.IsEmpty()) {
      engine_->close();  // before the detach: nothing may write to what is about to go
      memory_.Value().Detach();
      memory_.Reset();
    }
    shut(this);
  }

  // Also runs when the environment goes down, where no JavaScript value may be touched.
  static void shut(void* self) {
    NativeEngine* const engine = static_cast<NativeEngine*>(self);
    engine->engine_->close();
    if (!std::exchange(engine->shut_, true)) engine->settle_.Release();
  }

  // A call is pending until JavaScript has its result, which is a little longer than the engine thinks.
  void check_idle(Napi::Env env) const {
    if (pending_) throw Napi::Error::New(env, "another call is pending; the engine does one at a time");
  }

  template <typename Begin>
  Napi::Value start(Napi::Env env, Result result, Begin begin) {
    check_idle(env);
    const auto call = std::make_shared<Call>(Call{this, Napi::Promise::Deferred::New(env), std::move(result), {}});
    const Napi::Promise promise = call->deferred.Promise();
    translate(env, [&] {
      begin([call](const Error* error) {
        if (error != nullptr) call->error = *error;
        auto* const crossing = new std::shared_ptr<Call>(call);
        if (call->self->settle_.NonBlockingCall(crossing, settle) != napi_ok) delete crossing;
      });
    });
    pending_ = true;
    Ref();
    settle_.Ref(env);
    return promise;
  }

  static void settle(Napi::Env env, Napi::Function, std::shared_ptr<Call>* crossing) {
    const std::shared_ptr<Call> call = *crossing;
    delete crossing;
    if (env == nullptr) return;  // the environment is going down
    NativeEngine* const self = call->self;
    self->pending_ = false;
    if (call->error) {
      call->deferred.Reject(to_js(env, *call->error).Value());
    } else {
      call->deferred.Resolve(call->result(env));
    }
    self->settle_.Unref(env);
    self->Unref();
  }

  const Napi::Env env_;
  std::unique_ptr<Engine> engine_;
  Napi::ThreadSafeFunction settle_;
  Napi::Reference<Napi::ArrayBuffer> memory_;
  bool pending_ = false;
  bool shut_ = false;
};

Napi::Object to_js(Napi::Env env, const Part& part) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("path", part.path);
  object.Set("text", part.text);
  object.Set("missing", part.missing);
  return object;
}

// For `scmoe doctor`.
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
}  // namespace scmoe

static Napi::Object init_addon(Napi::Env env, Napi::Object exports) {
  return scmoe::init(env, exports);
}
NODE_API_MODULE(scmoe, init_addon)
