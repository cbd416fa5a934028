// Chat templates: the Jinja subset that model repositories use, interpreted within bounds.
//
// A template is untrusted: parsing and rendering are bounded in depth, steps and output bytes. A
// construct outside the subset is an error that names it with line and column; a template's
// own raise_exception('...') is an error with its text.
#pragma once

#include "base/json.h"
#include "base/result.h"

#include <memory>
#include <string>
#include <string_view>

namespace pinhole {

class ChatTemplate {
 public:
  static Result<ChatTemplate> parse(std::string_view source, const std::string& where);

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // `context` is an object: messages, tools, add_generation_prompt, bos_token, eos_token and
  // whatever else the template reads; tools and documents are None when absent. Behaves as
  // transformers' apply_chat_template does (trim_blocks, lstrip_blocks, its tojson), except that
  // lists and dicts may be changed (append, update, ...). strftime_now exists only when the context
  // has the key "strftime_now" with the local time: "YYYY-MM-DD" or "YYYY-MM-DDTHH:MM:SS".
  Result<std::string> render(const Json& context) const;

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

} // namespace pinhole
