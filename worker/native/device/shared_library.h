// A library opened at run time. Whatever is wrong with it is DEVICE_MISSING: what was found, what is needed, what to
// do.
#pragma once

#include <string>
#include <vector>

namespace scmoe {

class SharedLibrary {
 public:
  // The file that the environment names in `variable`, else the first of `names` that the loader finds. `what` it is
  // and the `remedy` (from its "; " on) are for messages. It stays open as long as the process: nothing unloads a
  // driver.
  SharedLibrary(std::string what, const char* variable, const std::vector<std::string>& names, std::string remedy);
  // What is opened after this may use the library's symbols without naming it.
  void share() const;

  const std::string& path() const { return path_; }

  [[noreturn]] void fail(const std::string& why) const;

  // Null where `name` is not among its symbols.
  void* find(const char* name) const;
  template <typename Function>
  Function function(const char* name) const {
    void* const found = find(name);
    if (found == nullptr) fail("has no function " + std::string(name));
    return reinterpret_cast<Function>(found);
  }
  template <typename Function>
  void bind(Function& pointer, const char* name) const {
    pointer = function<Function>(name);
  }

 private:
  const std::string what_, remedy_;
  std::string path_;
  void* handle_ = nullptr;
};

}  // namespace scmoe
