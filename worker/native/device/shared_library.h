// A library that is opened at run time. Everything that is wrong with it is a DEVICE_MISSING error,
// which says what was found, what is needed and what to do.
#pragma once

#include <string>
#include <vector>

namespace scmoe {

class SharedLibrary {
 public:
  // Opens the file that the environment variable `variable` names, otherwise the first of `names`
  // that the loader finds. `what` names the library in messages; `remedy`, which begins with "; ",
  // ends them. The library stays open until the process ends: a driver cannot be unloaded.
  SharedLibrary(std::string what, const char* variable, const std::vector<std::string>& names, std::string remedy);
  // Libraries that are opened after this call may use the library's symbols without linking to it.
  void share() const;

  const std::string& path() const { return path_; }

  [[noreturn]] void fail(const std::string& why) const;

  // Null if the library has no symbol `name`.
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
