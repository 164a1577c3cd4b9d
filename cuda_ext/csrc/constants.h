// Numeric limits as constants: device code may read them, but not call the standard library's functions.
#pragma once

#include <cstdint>
#include <limits>

namespace equilidar {

template <typename T>
inline constexpr T kInfinity = std::numeric_limits<T>::infinity();
template <typename T>
inline constexpr T kLargest = std::numeric_limits<T>::max();
template <typename T>
inline constexpr T kSmallest = std::numeric_limits<T>::min();  // of normal positive numbers
template <typename T>
inline constexpr T kEpsilon = std::numeric_limits<T>::epsilon();
template <typename T>
inline constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();

}  // namespace equilidar
