#include "device/shared_library.h"

#include <dlfcn.h>
#include <link.h>

#include <cstdlib>

#include "error.h"

namespace scmoe {
namespace {

// The path at which the loader found the library.
std::string path_of(void* handle, const std::string& name) {
  link_map* map = nullptr;
  if (dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0 || map->l_name[0] == '\0') return name;
  return map->l_name;
}

}  // namespace

SharedLibrary::SharedLibrary(std::string what, const char* variable, const std::vector<std::string>& names,
                             std::string remedy)
    : what_(std::move(what)), remedy_(std::move(remedy)) {
  const char* const chosen = std::getenv(variable);
  const bool named = chosen != nullptr && *chosen != '\0';
  std::string first_error;
  const auto open = [&](const std::string& name) {
    handle_ = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ != nullptr) path_ = path_of(handle_, name);
    if (handle_ == nullptr && first_error.empty()) first_error = dlerror();
  };
  if (named) {
    open(chosen);
  } else {
    for (const std::string& name : names) {
      if (handle_ == nullptr) open(name);
    }
  }
  if (handle_ != nullptr) return;
  const std::string where = named ? std::string(variable) + " is " + chosen + ", which " : what_ + " ";
  throw Error(kDeviceMissing, where + "cannot be opened: " + first_error + remedy_);
}

void SharedLibrary::share() const {
  dlopen(path_.c_str(), RTLD_NOW | RTLD_GLOBAL);  // already open: only makes its symbols global
}

void SharedLibrary::fail(const std::string& why) const {
  throw Error(kDeviceMissing, what_ + " at " + path_ + " " + why + remedy_);
}

void* SharedLibrary::find(const char* name) const {
  return dlsym(handle_, name);
}

}  // namespace scmoe
