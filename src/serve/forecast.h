// How long a request will take, from the measured rates of this machine.
#pragma once

#include "plan/rates.h"
#include "plan/speed.h"
#include "serve/generation.h"
#include "serve/model_service.h"

#include <chrono>
#include <mutex>
#include <string>

namespace pinhole::serve {

// The rates are measured at the first question, a second for each element type that is not kept yet
// (plan/rates.h), and those of the moment again when they are old and the model has nothing to do.
class Forecaster {
 public:
  SpeedPlan forecast(const ModelService& service, const Generation& generation);

 private:
  void renew(const ModelService& service);

  std::mutex mutex_;         // one measures, others wait
  std::string measured_for_; // the model's file
  std::chrono::steady_clock::time_point measured_at_;
  KernelRates rates_;
};

} // namespace pinhole::serve
