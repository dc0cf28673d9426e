// The two regions every buffer lives in: persistent ones keep their contents, transient ones live within one run.
#pragma once

#include <cstdint>
#include <memory>

namespace scmoe {

// Bytes this process may still take: the smaller of the machine's and the control group's free memory.
int64_t available_memory();

// Throws OUT_OF_MEMORY, with what is needed and what there is, if `bytes` cannot be had. Pages are taken when first
// touched, so this is asked before: an error beats the kernel's OOM kill.
void require_memory(int64_t bytes);

// A zeroed, page-aligned region.
class Arena {
 public:
  explicit Arena(int64_t bytes);  // throws OUT_OF_MEMORY if the address space is short
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  char* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  // Bytes promised but not yet taken.
  int64_t untouched_bytes() const;

 private:
  char* data_ = nullptr;
  int64_t bytes_ = 0;
};

// Where the buffers of all loaded programs lie. One transient region serves all, as only one program runs at a time.
class Memory {
 public:
  virtual ~Memory() = default;

  // Bytes that may still be taken.
  virtual int64_t available() const = 0;
  // Makes room for a program of this size; the persistent region is as large as the first one's. Throws OUT_OF_MEMORY
  // with what is needed, what there is and what to change; a call that throws leaves no mark.
  virtual void make_room(int64_t persistent_bytes, int64_t transient_bytes) = 0;
  // -1: none yet.
  virtual int64_t persistent_bytes() const = 0;

  // Where ops find them.
  virtual char* persistent() const = 0;
  virtual char* transient() const = 0;

  // Where this process reads and writes persistent buffers, at the same offsets; empty before make_room.
  virtual std::shared_ptr<Arena> host() const = 0;
  // Bytes of the persistent region, from where this process sees them to where ops do, and back.
  virtual void upload(int64_t offset, int64_t bytes) = 0;
  virtual void download(int64_t offset, int64_t bytes) = 0;

  // Gives everything back but what a view still holds.
  virtual void release() = 0;
};

// Ops run in this process's memory: both see the same, and nothing moves.
class HostMemory final : public Memory {
 public:
  int64_t available() const override { return available_memory(); }
  void make_room(int64_t persistent_bytes, int64_t transient_bytes) override;
  int64_t persistent_bytes() const override { return persistent_ ? persistent_->bytes() : -1; }
  char* persistent() const override { return persistent_->data(); }
  char* transient() const override { return transient_->data(); }
  std::shared_ptr<Arena> host() const override { return persistent_; }
  void upload(int64_t, int64_t) override {}
  void download(int64_t, int64_t) override {}
  void release() override { persistent_.reset(), transient_.reset(); }

 private:
  std::shared_ptr<Arena> persistent_;
  std::unique_ptr<Arena> transient_;
};

}  // namespace scmoe
