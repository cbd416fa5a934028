#include "serve/api_error.h"

#include "base/json.h"

#include <fmt/format.h>

namespace pinhole::serve {

namespace {

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

const char* type_of(int status) {
  switch (status) {
  case 401:
    return "authentication_error";
  case 403:
    return "permission_error";
  case 404:
    return "not_found_error";
  case 429:
    return "rate_limit_error";
  case 503:
    return "unavailable_error";
  default:
    return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

} // namespace

tl::unexpected<ApiError> refuse(int status, std::string message, std::string param,
                                std::string code) {
  ApiError error;
  error.status = status;
  error.message = std::move(message);
  error.type = type_of(status);
  error.param = std::move(param);
  error.code = std::move(code);
  return tl::unexpected<ApiError>(std::move(error));
}

ApiError to_api_error(const Error& error, std::string param) {
  ApiError out;
  // Where an error of a file says where, that is a path of this machine: it stays here.
  out.message = error.location.find('/') == std::string::npos ? error.text() : error.message;
  if (error.location.find('/') != std::string::npos && !error.hint.empty())
    out.message += "; " + error.hint;
  out.param = std::move(param);
  switch (error.code) {
  case ErrorCode::kInvalidInput:
    out.code = "invalid_value";
    break;
  case ErrorCode::kNotFound:
    out.status = 404;
    out.code = "not_found";
    break;
  case ErrorCode::kUnsupported:
    out.code = "unsupported";
    break;
  case ErrorCode::kTooLarge:
    out.code = "too_large";
    out.is_final = true;
    break;
  case ErrorCode::kIo:
    out.status = 500;
    break;
  case ErrorCode::kCancelled:
    out.status = 503;
    out.retry_after_s = 1;
    out.code = "cancelled";
    break;
  case ErrorCode::kBusy:
    out.status = 429;
    out.retry_after_s = 2;
    out.code = "busy";
    break;
  }
  out.type = type_of(out.status);
  return out;
}

ApiStyle style_of(std::string_view path) {
  return path.starts_with("/api/") && !path.starts_with("/api/v1/") ? ApiStyle::kOllama
                                                                    : ApiStyle::kOpenAi;
}

std::string openai_error_body(const ApiError& error) {
  const auto or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  return dump({{"error",
                {{"message", error.message},
                 {"type", error.type},
                 {"param", or_null(error.param)},
                 {"code", or_null(error.code)}}}});
}

std::string ollama_error_body(const ApiError& error) {
  return dump({{"error", error.param.empty() ? error.message
                                             : fmt::format("{}: {}", error.param, error.message)}});
}

HttpReply error_reply(const ApiError& error, ApiStyle style) {
  HttpReply reply;
  reply.status = error.status;
  // The ollama client and server say 503 of a full queue.
  if (style == ApiStyle::kOllama && error.status == 429)
    reply.status = 503;
  reply.body = style == ApiStyle::kOllama ? ollama_error_body(error) : openai_error_body(error);
  if (error.retry_after_s > 0)
    reply.headers.emplace_back("Retry-After", fmt::format("{}", error.retry_after_s));
  if (error.is_final)
    reply.headers.emplace_back("x-should-retry", "false");
  if (error.status == 401)
    reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  return reply;
}

HttpReply problem_reply(const HttpProblem& problem, std::string_view path) {
  ApiError error;
  error.status = problem.status;
  error.message = problem.message;
  error.type = type_of(problem.status);
  error.code = problem.status == 401 ? "invalid_api_key" : "";
  if (problem.status == 503)
    error.retry_after_s = 2;
  error.is_final = problem.status == 413;
  return error_reply(error, style_of(path));
}

} // namespace pinhole::serve
