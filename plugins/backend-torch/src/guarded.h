// How the C++ files report errors: no exception crosses to Rust.

#pragma once

#include <c10/util/Exception.h>

#include <cstring>
#include <exception>

// Null, or a message that `telos_torch_free` takes back.
template <typename F>
char* guarded(F&& f) {
  try {
    f();
    return nullptr;
  } catch (const c10::Error& e) {
    return strdup(e.what_without_backtrace());
  } catch (const std::exception& e) {
    return strdup(e.what());
  } catch (...) {
    return strdup("an exception that is not a std::exception");
  }
}
