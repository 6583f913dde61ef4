common_key: common_value
