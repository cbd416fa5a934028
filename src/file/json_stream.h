// A JSON reader of tokens for headers that may be large: nlohmann's SAX interface with the first
// error kept, and a limit on what its lexer buffers at a time.
#pragma once

#include "base/json.h"
#include "base/result.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace pinhole {

// Handlers override what they accept; everything else is refused. `false` stops the parser.
class JsonStream {
 public:
  using number_integer_t = Json::number_integer_t;
  using number_unsigned_t = Json::number_unsigned_t;
  using number_float_t = Json::number_float_t;
  using string_t = Json::string_t;
  using binary_t = Json::binary_t;

  // `text` begins at byte `base` of the file `name`.
  JsonStream(std::string name, uint64_t base) : name_(std::move(name)), base_(base) {}
  virtual ~JsonStream() = default;

  Status run(std::string_view text);

  virtual bool null() { return unexpected("null"); }
  virtual bool boolean(bool) { return unexpected("true or false"); }
  virtual bool number_integer(number_integer_t) { return unexpected("a negative number"); }
  virtual bool number_unsigned(number_unsigned_t) { return unexpected("a number"); }
  virtual bool number_float(number_float_t, const string_t&) { return unexpected("a fraction"); }
  virtual bool string(string_t&) { return unexpected("a string"); }
  virtual bool start_object(size_t) { return unexpected("an object"); }
  virtual bool key(string_t&) { return unexpected("a key"); }
  virtual bool end_object() { return true; }
  virtual bool start_array(size_t) { return unexpected("an array"); }
  virtual bool end_array() { return true; }
  bool binary(binary_t&) { return unexpected("binary data"); }
  bool parse_error(size_t position, const std::string& last_token,
                   const nlohmann::detail::exception& error);

 protected:
  virtual std::string context() const { return "the header"; } // what is being read, for errors
  bool stop(Error error);
  bool stop(std::string message) {
    return stop(Error{ErrorCode::kInvalidInput, message, name_, {}});
  }
  bool unexpected(const char* what) {
    return stop(context() + ": " + what + " is not expected here");
  }
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  uint64_t base_;
  Status status_;
};

} // namespace pinhole
