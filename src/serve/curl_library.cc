#include "serve/curl_library.h"

#include <dlfcn.h>
#include <type_traits>

namespace pinhole::serve {

const Curl& curl() {
  static const Curl kCurl = [] {
    Curl out;
    void* const library = ::dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr)
      return out;
    decltype(&::curl_global_init) global_init = nullptr;
    const auto load = [&](auto& function, const char* name) {
      function =
          reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(library, name));
      return function != nullptr;
    };
    out.is_there =
        load(global_init, "curl_global_init") && load(out.init, "curl_easy_init") &&
        load(out.cleanup, "curl_easy_cleanup") && load(out.setopt, "curl_easy_setopt") &&
        load(out.getinfo, "curl_easy_getinfo") && load(out.easy_perform, "curl_easy_perform") &&
        load(out.strerror, "curl_easy_strerror") && load(out.multi_init, "curl_multi_init") &&
        load(out.multi_cleanup, "curl_multi_cleanup") &&
        load(out.add_handle, "curl_multi_add_handle") &&
        load(out.remove_handle, "curl_multi_remove_handle") &&
        load(out.perform, "curl_multi_perform") && load(out.poll, "curl_multi_poll") &&
        load(out.info_read, "curl_multi_info_read") &&
        load(out.slist_append, "curl_slist_append") &&
        load(out.slist_free_all, "curl_slist_free_all") &&
        global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
    return out;
  }();
  return kCurl;
}

} // namespace pinhole::serve
