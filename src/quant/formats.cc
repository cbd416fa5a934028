#include "quant/formats.h"
