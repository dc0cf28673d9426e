#include "stream.h"

#include <chrono>

namespace scmoe::standin {

void ThreadEvent::await(uint64_t count) {
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return done >= count; });
}

ThreadStream::ThreadStream() : thread_([this] { loop(); }) {}

ThreadStream::~ThreadStream() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    changed_.notify_one();
  }
  thread_.join();
}

void ThreadStream::put(Work work) {
  if (capture != nullptr) {
    capture->calls.push_back([this, work = std::move(work)] { put(work); });
    return;
  }
  const std::lock_guard lock(mutex_);
  work_.push_back(std::move(work));
  changed_.notify_one();
}

void ThreadStream::record(ThreadEvent* event) {
  event->capture = capture;
  if (capture != nullptr) {
    capture->calls.push_back([this, event] { record(event); });
    return;
  }
  uint64_t count;
  {
    const std::lock_guard lock(event->mutex);
    count = ++event->recorded;
  }
  put([event, count] {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    const std::lock_guard lock(event->mutex);
    event->microseconds = std::chrono::duration<double, std::micro>(now).count();
    event->done = count;
    event->changed.notify_all();
  });
}

void ThreadStream::wait(ThreadEvent* event) {
  if (event->capture != nullptr) join_capture(event->capture);
  if (capture != nullptr) {
    capture->calls.push_back([this, event] { wait(event); });
    return;
  }
  uint64_t count;
  {
    const std::lock_guard lock(event->mutex);
    count = event->recorded;
  }
  put([event, count] { event->await(count); });
}

void ThreadStream::join_capture(ThreadGraph* graph) {
  if (capture == graph) return;
  capture = graph;
  graph->streams.push_back(this);
}

ThreadGraph* ThreadStream::end_capture() {
  ThreadGraph* const graph = capture;
  for (ThreadStream* stream : graph->streams) stream->capture = nullptr;
  return graph;
}

void ThreadStream::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ending_ || !work_.empty(); });
    if (work_.empty()) return;
    const Work work = std::move(work_.front());
    work_.pop_front();
    lock.unlock();
    work();
    lock.lock();
  }
}

}  // namespace scmoe::standin
