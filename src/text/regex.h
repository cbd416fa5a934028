// Regular expressions of tokenizers, through PCRE2, with bounded work.
//
// tokenizer.json writes them for Oniguruma (https://github.com/kkos/oniguruma/blob/master/doc/RE);
// what means something else to PCRE2 is rewritten, and what cannot be is an error that names it. A
// pattern that backtracks exponentially is refused when it is compiled; while matching, a budget of
// backtracking steps per text keeps the time linear whatever the pattern.
#pragma once

#include "base/function_ref.h"
#include "base/result.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;
struct pcre2_real_jit_stack_8;

namespace pinhole {

class Regex {
 public:
  static Result<Regex> compile(std::string_view pattern, const std::string& where);

 private:
  friend class RegexMatcher;
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  std::unique_ptr<pcre2_real_code_8, Free> code_;
};

// Finds the matches of one Regex in valid UTF-8. Holds the scratch memory of one thread.
class RegexMatcher {
 public:
  explicit RegexMatcher(const Regex& regex);
  ~RegexMatcher();
  RegexMatcher(RegexMatcher&& other) noexcept;
  RegexMatcher(const RegexMatcher&) = delete;
  RegexMatcher& operator=(const RegexMatcher&) = delete;

  // The first match at or after `from`. False when there is none, and from then on when the budget
  // of steps is used up.
  bool find(std::string_view subject, size_t from, size_t& begin, size_t& end);

  // All matches from left to right; an empty one right behind another match does not count.
  void find_all(std::string_view subject, FunctionRef<void(size_t begin, size_t end)> on_match);

  // Steps of backtracking that all searches together may take (about 10 ns each), beyond those that
  // every search has for free.
  void set_budget(uint64_t steps) { budget_steps_ = steps; }
  void add_budget(size_t text_bytes); // for a text of this size
  bool exhausted() const { return exhausted_; }

 private:
  const pcre2_real_code_8* code_;
  pcre2_real_match_data_8* match_ = nullptr;
  pcre2_real_match_context_8* context_ = nullptr;
  pcre2_real_jit_stack_8* stack_ = nullptr;
  uint64_t budget_steps_ = 0;
  uint32_t limit_ = 0; // what the context holds
  bool exhausted_ = false;
};

} // namespace pinhole
