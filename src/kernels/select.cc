#include "kernels/select.h"
