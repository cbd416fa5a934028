// Result<T>: the outcome of every operation on untrusted input or on the system.
//
// An Error says what is wrong (with the offending and the expected value), where (file, tensor,
// byte offset, line) and, when there is one, the next step. The library never prints and never
// exits; an assert means a bug of ours. std::expected is C++23, so this is tl::expected
// (libexpected-dev).
#pragma once

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace pinhole {

enum class ErrorCode {
  kInvalidInput, // a file, picture, template or argument is not what it must be
  kNotFound,     // a file, tensor or key that must exist does not
  kUnsupported,  // well-formed, but nothing here implements it
  kTooLarge,     // a limit on bytes, pixels, tokens or memory was passed
  kIo,           // the operating system refused
  kCancelled,    // the user interrupted
  kBusy,         // others have it now; the same may succeed later
};

struct Error {
  ErrorCode code = ErrorCode::kInvalidInput;
  std::string message;  // what is wrong: "tensor 'x': 12 bytes, expected 16"
  std::string location; // where: "model.gguf, byte 4096"; empty when the message says it
  std::string hint;     // next step for a person; may be empty

  // "location: message; hint", without the parts that are empty.
  std::string text() const {
    std::string out = location.empty() ? message : location + ": " + message;
    if (!hint.empty())
      out += "; " + hint;
    return out;
  }
};

template <class T> using Result = tl::expected<T, Error>;
using Status = Result<void>;

// `return fail(ErrorCode::kInvalidInput, "...")` in a function that returns any Result<T>.
inline tl::unexpected<Error> fail(ErrorCode code, std::string message, std::string location = {},
                                  std::string hint = {}) {
  return tl::unexpected<Error>(
      Error{code, std::move(message), std::move(location), std::move(hint)});
}

// Passes an error on, with `location` put before the one it already has.
inline tl::unexpected<Error> fail_in(std::string_view location, Error error) {
  error.location = error.location.empty() ? std::string(location)
                                          : std::string(location) + ", " + error.location;
  return tl::unexpected<Error>(std::move(error));
}

} // namespace pinhole

#define PINHOLE_CONCAT_(a, b) a##b
#define PINHOLE_CONCAT(a, b) PINHOLE_CONCAT_(a, b)

// PINHOLE_TRY(auto x, make_x()): declares x from a Result, or returns its error.
#define PINHOLE_TRY(decl, expr) PINHOLE_TRY_(decl, expr, PINHOLE_CONCAT(result_, __LINE__))
#define PINHOLE_TRY_(decl, expr, tmp)                                                              \
  auto tmp = (expr);                                                                               \
  if (!tmp)                                                                                        \
    return tl::unexpected<::pinhole::Error>(std::move(tmp.error()));                               \
  decl = std::move(*tmp)

// PINHOLE_CHECK(step()): returns the error of a Status (or of a Result whose value is not needed).
#define PINHOLE_CHECK(expr)                                                                        \
  do {                                                                                             \
    auto check_status_ = (expr);                                                                   \
    if (!check_status_)                                                                            \
      return tl::unexpected<::pinhole::Error>(std::move(check_status_.error()));                   \
  } while (false)
