#include "binding/native_engine.h"

#include <utility>

#include "binding/values.h"
#include "hardware.h"

namespace scmoe::binding {

Napi::Function NativeEngine::define(Napi::Env env) {
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

NativeEngine::NativeEngine(const Napi::CallbackInfo& info) : Napi::ObjectWrap<NativeEngine>(info), env_(info.Env()) {
  if (!info[0].IsObject()) throw Napi::TypeError::New(env_, "engine options are missing");
  const EngineOptions options = engine_options(info[0].As<Napi::Object>());
  const HardwareOptions hardware = hardware_options(info[0].As<Napi::Object>());
  engine_ = translate(env_, [&] { return std::make_unique<Engine>(options, executor_for(hardware)); });
  const auto nothing = [](const Napi::CallbackInfo&) {};
  settle_ = Napi::ThreadSafeFunction::New(env_, Napi::Function::New(env_, nothing), "scmoe", 0, 1);
  settle_.Unref(env_);  // only a pending call keeps the process alive, not an idle engine
  // For a process that ends without close(): the engine's threads must end before the objects that
  // they use.
  napi_add_env_cleanup_hook(env_, shut, this);
}

NativeEngine::~NativeEngine() {
  if (!engine_) return;  // the constructor threw
  napi_remove_env_cleanup_hook(env_, shut, this);
  shut(this);
}

Napi::Value NativeEngine::description(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), engine_->description());
}

Napi::Value NativeEngine::bytes_sent(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), double(engine_->bytes_sent()));
}

Napi::Value NativeEngine::listen(const Napi::CallbackInfo& info) {
  const int port = integer(info[0], "port");
  return Napi::Number::New(info.Env(), translate(info.Env(), [&] { return engine_->listen(port); }));
}

Napi::Value NativeEngine::connect(const Napi::CallbackInfo& info) {
  std::vector<PeerAddress> addresses = peers(info[0]);
  const TokenDigest token = digest(info[1]);
  return start(
      info.Env(), [](Napi::Env env) { return env.Undefined(); },
      [&](Done done) { engine_->connect(std::move(addresses), token, std::move(done)); });
}

void NativeEngine::load(const Napi::CallbackInfo& info) {
  const std::string json = text(info[0], "program");
  check_idle(info.Env());
  translate(info.Env(), [&] { engine_->load(json); });
}

Napi::Value NativeEngine::run(const Napi::CallbackInfo& info) {
  const std::string name = text(info[0], "name");
  const Result times = [this](Napi::Env env) {
    Napi::Object result = Napi::Object::New(env);
    result.Set("start", to_js(env, engine_->times().start));
    result.Set("end", to_js(env, engine_->times().end));
    result.Set("ready", to_js(env, engine_->times().ready));
    result.Set("cpu", to_js(env, engine_->times().cpu));
    return result;
  };
  return start(info.Env(), times, [&](Done done) { engine_->run(name, std::move(done)); });
}

Napi::Value NativeEngine::all_reduce(const Napi::CallbackInfo& info) {
  const auto values = std::make_shared<std::vector<double>>(doubles(info[0], "values"));
  return start(
      info.Env(), [values](Napi::Env env) { return to_js(env, *values); },
      [&](Done done) { engine_->all_reduce(values, std::move(done)); });
}

// One ArrayBuffer covers the arena. close() detaches it, which makes every view of it empty.
Napi::Value NativeEngine::view(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string name = text(info[0], "buffer");
  const BufferView view = translate(env, [&] { return engine_->view(name); });
  if (memory_.IsEmpty()) {
    auto* const owner = new std::shared_ptr<Arena>(view.arena);
    const auto release = [](Napi::Env, void*, std::shared_ptr<Arena>* arena) { delete arena; };
    memory_ =
        Napi::Persistent(Napi::ArrayBuffer::New(env, view.arena->data(), size_t(view.arena->bytes()), release, owner));
  }
  if (view.dtype == DType::kBF16) {
    throw Napi::TypeError::New(env, "view: buffer '" + name + "' is bf16, for which JavaScript has no array");
  }
  if (view.dtype == DType::kI32) return Napi::Int32Array::New(env, view.elements, memory_.Value(), view.offset);
  return Napi::Float32Array::New(env, view.elements, memory_.Value(), view.offset);
}

void NativeEngine::upload(const Napi::CallbackInfo& info) {
  const std::vector<std::string> buffers = texts(info[0], "buffers");
  check_idle(info.Env());
  translate(info.Env(), [&] { engine_->upload(buffers); });
}

void NativeEngine::download(const Napi::CallbackInfo& info) {
  const std::vector<std::string> buffers = texts(info[0], "buffers");
  check_idle(info.Env());
  translate(info.Env(), [&] { engine_->download(buffers); });
}

Napi::Value NativeEngine::available_memory(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), double(translate(info.Env(), [&] { return engine_->available_memory(); })));
}

void NativeEngine::abort(const Napi::CallbackInfo&) {
  engine_->abort();
}

void NativeEngine::close(const Napi::CallbackInfo& info) {
  const Napi::HandleScope scope(info.Env());
  if (!memory_.IsEmpty()) {
    engine_->close();  // before the detach, so that nothing writes to memory that is going away
    memory_.Value().Detach();
    memory_.Reset();
  }
  shut(this);
}

// Also runs when the environment goes down, when no JavaScript value may be touched.
void NativeEngine::shut(void* self) {
  NativeEngine* const engine = static_cast<NativeEngine*>(self);
  engine->engine_->close();
  if (!std::exchange(engine->shut_, true)) engine->settle_.Release();
}

// A call is pending here until JavaScript has its result, which is a little longer than the engine
// considers it pending.
void NativeEngine::check_idle(Napi::Env env) const {
  if (pending_) throw Napi::Error::New(env, "another call is pending; wait for its end, the engine does one at a time");
}

// Begins a call of the engine and returns its promise.
Napi::Value NativeEngine::start(Napi::Env env, Result result, const std::function<void(Done done)>& begin) {
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

// Runs on JavaScript's thread when a call has ended.
void NativeEngine::settle(Napi::Env env, Napi::Function, std::shared_ptr<Call>* crossing) {
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

}  // namespace scmoe::binding
