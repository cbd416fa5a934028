// What is wrong with a request, and how each API says so.
#pragma once

#include "base/result.h"
#include "serve/http.h"
#include "serve/http_head.h"

#include <string>
#include <string_view>
#include <tl/expected.hpp>

namespace pinhole::serve {

struct ApiError {
  int status = 400;
  std::string message;
  std::string type = "invalid_request_error";
  std::string param; // the field, where it is one's fault
  std::string code;
  int retry_after_s = 0; // 0: not said
  bool is_final = false; // the same request fails again: clients must not repeat it
};
template <class T> using ApiResult = tl::expected<T, ApiError>;

tl::unexpected<ApiError> refuse(int status, std::string message, std::string param = {},
                                std::string code = {});
// An error of the layers below; `param` names the field that it is about, where there is one.
ApiError to_api_error(const Error& error, std::string param = {});

enum class ApiStyle { kOpenAi, kOllama };
ApiStyle style_of(std::string_view path);
// {"error": {message, type, param, code}}
std::string openai_error_body(const ApiError& error);
// {"error": "message"}
std::string ollama_error_body(const ApiError& error);
HttpReply error_reply(const ApiError& error, ApiStyle style);
HttpReply problem_reply(const HttpProblem& problem, std::string_view path);

} // namespace pinhole::serve

// PINHOLE_API(auto x, make_x()): declares x from an ApiResult, or returns its error.
#define PINHOLE_API(decl, expr) PINHOLE_API_(decl, expr, PINHOLE_CONCAT(api_result_, __LINE__))
#define PINHOLE_API_(decl, expr, tmp)                                                              \
  auto tmp = (expr);                                                                               \
  if (!tmp)                                                                                        \
    return tl::unexpected<::pinhole::serve::ApiError>(std::move(tmp.error()));                     \
  decl = std::move(*tmp)

#define PINHOLE_API_CHECK(expr)                                                                    \
  do {                                                                                             \
    auto check_api_ = (expr);                                                                      \
    if (!check_api_)                                                                               \
      return tl::unexpected<::pinhole::serve::ApiError>(std::move(check_api_.error()));            \
  } while (false)
