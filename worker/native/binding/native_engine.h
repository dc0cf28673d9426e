// The JavaScript class that worker/engine.ts wraps: one engine, with plain data in and promises
// out.
#pragma once

#include <napi.h>

#include <functional>
#include <memory>
#include <optional>

#include "engine/engine.h"

namespace scmoe::binding {

class NativeEngine : public Napi::ObjectWrap<NativeEngine> {
 public:
  static Napi::Function define(Napi::Env env);

  explicit NativeEngine(const Napi::CallbackInfo& info);
  ~NativeEngine() override;

 private:
  // Makes the value that a promise resolves to, on JavaScript's thread, after the call has
  // succeeded.
  using Result = std::function<Napi::Value(Napi::Env env)>;

  struct Call {
    NativeEngine* self;
    Napi::Promise::Deferred deferred;
    Result result;
    std::optional<Error> error;
  };

  Napi::Value description(const Napi::CallbackInfo& info);
  Napi::Value bytes_sent(const Napi::CallbackInfo& info);
  Napi::Value listen(const Napi::CallbackInfo& info);
  Napi::Value connect(const Napi::CallbackInfo& info);
  void load(const Napi::CallbackInfo& info);
  Napi::Value run(const Napi::CallbackInfo& info);
  Napi::Value all_reduce(const Napi::CallbackInfo& info);
  Napi::Value view(const Napi::CallbackInfo& info);
  void upload(const Napi::CallbackInfo& info);
  void download(const Napi::CallbackInfo& info);
  Napi::Value available_memory(const Napi::CallbackInfo& info);
  void abort(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo& info);

  static void shut(void* self);
  void check_idle(Napi::Env env) const;
  Napi::Value start(Napi::Env env, Result result, const std::function<void(Done done)>& begin);
  static void settle(Napi::Env env, Napi::Function, std::shared_ptr<Call>* crossing);

  const Napi::Env env_;
  std::unique_ptr<Engine> engine_;
  Napi::ThreadSafeFunction settle_;
  Napi::Reference<Napi::ArrayBuffer> memory_;
  bool pending_ = false;
  bool shut_ = false;
};

}  // namespace scmoe::binding
