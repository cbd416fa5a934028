// Forms from strangers, through httplib: every request gets a reply with a status.

#include "serve/api_error.h"
#include "serve/dispatcher.h"

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pinhole::serve;
  static Dispatcher dispatcher({{"POST", "/form",
                                 [](HttpRequest& request) {
                                   HttpReply reply;
                                   reply.body =
                                       std::to_string(request.parts.size() + request.body.size());
                                   return reply;
                                 }}},
                               {problem_reply, [](std::string_view) { return HttpHeaders{}; }});
  WholeRequest request;
  request.head.method = "POST";
  request.head.target = "/form";
  request.head.headers = {{"Host", "a"}, {"Content-Type", "multipart/form-data; boundary=B"}};
  request.head.has_length = true;
  request.body.assign(reinterpret_cast<const char*>(data), size);
  std::atomic<bool> gone{false};
  std::string out;
  dispatcher.answer(request, gone, [&](std::string_view bytes) {
    out += bytes;
    return true;
  });
  if (!out.starts_with("HTTP/1.1 "))
    std::abort();
  return 0;
}
