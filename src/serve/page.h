// The web page: files of src/serve/page, in the program as bytes (cmake/embed.cmake). They hold
// nothing that needs a key, and load nothing from elsewhere: the policy that is sent forbids it.
#pragma once

#include "serve/api.h"
#include "serve/http.h"

#include <span>
#include <string_view>

namespace pinhole::serve {

struct EmbeddedFile {
  std::string_view name, bytes;
};

std::span<const EmbeddedFile> page_files();

// Whether a path is the page or one of its files, which anybody may read.
bool is_page_path(std::string_view path);

HttpReply page(Api& api, HttpRequest& http);      // "/"
HttpReply page_file(Api& api, HttpRequest& http); // "/page/NAME"

} // namespace pinhole::serve
